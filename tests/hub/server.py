"""A small Hugging Face Hub on loopback: as much of its HTTP API as the real client needs to publish and to load.

Repositories live in memory as commits of files. Spoken are: whoami, creating a repository, validate-yaml, preupload,
the LFS batch endpoint with upload and verification, commits as NDJSON, branches, refs, repository info by revision,
trees and paths-info, and `resolve` with etag and commit headers, redirecting large files to their storage as
the Hub does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "loopbackTestToken" * 2
USER = "ann"
LARGE = 10_000  # bytes; the Hub also goes by file type
LFS_ENDINGS = (".safetensors", ".parquet", ".png")


@dataclass
class Commit:
    sha: str
    title: str
    files: dict[str, str]  # path to key of the content


@dataclass
class Repo:
    name: str
    private: bool = False
    branches: dict[str, list[Commit]] = field(default_factory=dict)


@dataclass
class Hub:
    """The state of the server; tests look at it."""

    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    storage: str = ""  # another host by name, as the Hub's storage is: the client follows redirects to it differently
    down: bool = False

    def store(self, content: bytes) -> str:
        key = hashlib.sha256(content).hexdigest()
        self.contents[key] = content
        return key

    def add(self, name: str, files: dict[str, bytes], kind: str = "model", private: bool = False) -> Repo:
        """Put a repository there without a client."""
        repo = self.repos[kind, name] = Repo(name, private)
        keys = {path: self.store(content) for path, content in files.items()}
        for path, content in files.items():
            if path.endswith(LFS_ENDINGS):
                self.lfs.add(keys[path])
            assert content is not None
        repo.branches["main"] = [self._commit([], "initial commit", keys)]
        return repo

    def files(self, name: str, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        """Files of a branch, as the server received them."""
        return {path: self.contents[key] for path, key in self.repos[kind, name].branches[revision][-1].files.items()}

    @staticmethod
    def _commit(history: list[Commit], title: str, files: dict[str, str]) -> Commit:
        text = json.dumps([title, len(history), sorted(files.items()), history[-1].sha if history else ""])
        return Commit(hashlib.sha1(text.encode()).hexdigest(), title, files)

    def commit(self, repo: Repo, branch: str, title: str, files: dict[str, str]) -> Commit:
        history = repo.branches[branch]
        history.append(self._commit(history, title, files))
        return history[-1]

    def find(self, repo: Repo, revision: str) -> Commit | None:
        if revision in repo.branches:
            return repo.branches[revision][-1]
        commits = (commit for history in repo.branches.values() for commit in history)
        return next((commit for commit in commits if commit.sha == revision), None)


class _Refused(Exception):
    def __init__(self, status: int, code: str | None, message: str, **content: str) -> None:
        self.status, self.code, self.message, self.content = status, code, message, content


def _git_sha(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args) -> None:
        pass

    def _send(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        split = urlsplit(self.path)
        path = unquote(split.path)
        self.hub.requests.append((self.command, split.path))
        if self.hub.down:
            return self._send(503, b"down")
        parts, query = split.path.strip("/").split("/"), parse_qs(split.query)
        try:
            if parts[0] == "lfs-storage":
                return self._storage(parts[1], body)
            if parts[0] == "api":
                return self._api([unquote(part) for part in parts[1:]], body, query)
            if path.endswith("/info/lfs/objects/batch"):
                return self._lfs_batch(body)
            return self._resolve([unquote(part) for part in parts])
        except _Refused as error:
            headers = {"X-Error-Message": error.message}
            if error.code:
                headers["X-Error-Code"] = error.code
            self._json({"error": error.message, **error.content}, error.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    # -- who may do what

    def _signed_in(self) -> bool:
        given = self.headers.get("Authorization")
        if given is None:
            return False
        if given != f"Bearer {TOKEN}":
            raise _Refused(401, None, "Invalid credentials in Authorization header")
        return True

    def _may_write(self, name: str) -> None:
        if not self._signed_in():
            raise _Refused(401, None, "Invalid username or password.")
        if name.split("/")[0] != USER:
            raise _Refused(403, None, "You don't have the rights to create a repo under this namespace")

    def _repo(self, kind: str, name: str) -> Repo:
        repo = self.hub.repos.get((kind, name))
        signed_in = self._signed_in()
        if repo is None or (repo.private and not signed_in):
            raise _Refused(404 if signed_in else 401, "RepoNotFound", "Repository not found")
        return repo

    def _commit(self, repo: Repo, revision: str) -> Commit:
        commit = self.hub.find(repo, revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # -- the API

    def _api(self, parts: list[str], body: bytes, query: dict[str, list[str]]) -> None:
        if parts == ["whoami-v2"]:
            if not self._signed_in():
                raise _Refused(401, None, "Invalid username or password.")
            return self._json({"name": USER, "type": "user", "orgs": []})
        if parts == ["validate-yaml"]:
            text = json.loads(body)["content"]
            # The Hub warns of a card without metadata.
            warnings = [] if text.startswith("---\n") else [{"message": "empty or missing yaml metadata"}]
            return self._json({"errors": [], "warnings": warnings})
        if parts == ["repos", "create"]:
            return self._create(json.loads(body))
        if parts[0] == "lfs-verify":
            asked = json.loads(body)
            if len(self.hub.contents.get(asked["oid"], b"")) != asked["size"]:
                raise _Refused(400, None, "the upload is not complete")
            return self._json({})
        kind, name, rest = parts[0].removesuffix("s"), "/".join(parts[1:3]), parts[3:]
        if self.command == "GET":
            return self._get(kind, name, rest, query)
        if rest[0] == "paths-info":
            entries = self._tree(self._commit(self._repo(kind, name), rest[1]), "", recursive=True)
            asked = parse_qs(body.decode())["paths"]
            return self._json([entry for entry in entries if entry["path"] in asked])
        self._may_write(name)
        repo = self._repo(kind, name)
        if rest[0] == "branch":
            branch = rest[1]
            if branch in repo.branches:
                raise _Refused(409, None, "Reference already exists")
            start = json.loads(body or b"{}").get("startingPoint", "main")
            repo.branches[branch] = [self._commit(repo, start)]
            return self._json({})
        if rest[0] == "preupload":
            return self._json({"files": self._upload_modes(repo, rest[1], json.loads(body)["files"])})
        if rest[0] == "commit":
            return self._receive(repo, kind, rest[1], body)
        raise _Refused(404, None, "Sorry, we can't find the page you are looking for.")

    def _create(self, asked: dict) -> None:
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        self._may_write(name)
        kind = asked.get("type") or "model"
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.hub.repos:
            raise _Refused(409, None, "You already created this model repo", url=url)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        # As on the Hub, a new repository has this file.
        self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, kind, private)
        self._json({"url": url, "name": name})

    def _get(self, kind: str, name: str, rest: list[str], query: dict[str, list[str]]) -> None:
        repo = self._repo(kind, name)
        if rest[:1] == ["refs"]:
            heads = [
                {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": history[-1].sha}
                for branch, history in repo.branches.items()
            ]
            return self._json({"branches": heads, "converts": [], "tags": []})
        if not rest or rest[0] == "revision":
            commit = self._commit(repo, rest[1] if rest else "main")
            siblings = [{"rfilename": path} for path in sorted(commit.files)]
            info = {
                "_id": "1",
                "id": name,
                "sha": commit.sha,
                "private": repo.private,
                "siblings": siblings,
                "tags": [],
            }
            return self._json(info)
        if rest[0] == "tree":
            commit, folder = self._commit(repo, rest[1]), "/".join(rest[2:])
            return self._json(
                self._tree(commit, folder, query.get("recursive", ["false"])[0] in ("true", "True", "1"))
            )
        raise _Refused(404, None, "Sorry, we can't find the page you are looking for.")

    def _tree(self, commit: Commit, folder: str, recursive: bool) -> list[dict]:
        entries: dict[str, dict] = {}
        prefix = f"{folder}/" if folder else ""
        for path, key in sorted(commit.files.items()):
            if not path.startswith(prefix):
                continue
            inner = path[len(prefix) :].split("/")
            for depth in range(1, len(inner)):
                name = prefix + "/".join(inner[:depth])
                if recursive or depth == 1:
                    entries[name] = {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest()}
            if recursive or len(inner) == 1:
                content = self.hub.contents[key]
                entry = {"type": "file", "path": path, "size": len(content), "oid": _git_sha(content)}
                if key in self.hub.lfs:
                    entry["lfs"] = {"oid": key, "size": len(content), "pointerSize": 130}
                entries[path] = entry
        if prefix and not entries:
            raise _Refused(404, "EntryNotFound", f"{folder} does not exist")
        return list(entries.values())

    # -- uploads

    def _upload_modes(self, repo: Repo, revision: str, files: list[dict]) -> list[dict]:
        there = self._commit(repo, revision).files
        found = []
        for file in files:
            large = file["size"] > LARGE or file["path"].endswith(LFS_ENDINGS)
            key = there.get(file["path"])
            oid = None if key is None else key if key in self.hub.lfs else _git_sha(self.hub.contents[key])
            mode = "lfs" if large else "regular"
            found.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return found

    def _lfs_batch(self, body: bytes) -> None:
        if not self._signed_in():
            raise _Refused(401, None, "Invalid username or password.")
        objects = []
        for asked in json.loads(body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.contents:
                entry["actions"] = {
                    "upload": {"href": f"{self.hub.storage}/lfs-storage/{asked['oid']}"},
                    "verify": {"href": f"{self.hub.url}/api/lfs-verify"},
                }
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def _storage(self, oid: str, body: bytes) -> None:
        if self.command == "PUT":
            if hashlib.sha256(body).hexdigest() != oid:
                raise _Refused(400, None, "content does not have the hash that was announced")
            self.hub.store(body)
            return self._send(200)
        content = self.hub.contents[oid]
        self._send(200, content, {"ETag": f'"{oid}"'})

    def _receive(self, repo: Repo, kind: str, revision: str, body: bytes) -> None:
        if revision not in repo.branches:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        lines = [json.loads(line) for line in body.splitlines()]
        assert lines[0]["key"] == "header"
        files = dict(self.hub.find(repo, revision).files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = self.hub.store(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.contents:
                    raise _Refused(400, None, f"{value['path']} was not uploaded")
                self.hub.lfs.add(value["oid"])
                files[value["path"]] = value["oid"]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise _Refused(400, None, f"unknown operation {line['key']}")
        commit = self.hub.commit(repo, revision, lines[0]["value"]["summary"], files)
        prefix = "datasets/" if kind == "dataset" else ""
        url = f"{self.hub.url}/{prefix}{repo.name}/commit/{commit.sha}"
        self._json({"success": True, "commitOid": commit.sha, "commitUrl": url, "hookOutput": ""})

    # -- downloads

    def _resolve(self, parts: list[str]) -> None:
        kind = "model"
        if parts[0] == "datasets":
            kind, parts = "dataset", parts[1:]
        if len(parts) < 5 or parts[2] != "resolve":
            raise _Refused(404, None, "Sorry, we can't find the page you are looking for.")
        repo = self._repo(kind, "/".join(parts[:2]))
        commit, path = self._commit(repo, parts[3]), "/".join(parts[4:])
        headers = {"X-Repo-Commit": commit.sha}
        if path not in commit.files:
            return self._send(404, b"", {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "no entry"})
        key = commit.files[path]
        content = self.hub.contents[key]
        if key in self.hub.lfs:
            location = f"{self.hub.storage}/lfs-storage/{key}"
            linked = {"X-Linked-Etag": f'"{key}"', "X-Linked-Size": str(len(content)), "Location": location}
            return self._send(302, b"", {**headers, **linked})
        self._send(200, content, {**headers, "ETag": f'"{_git_sha(content)}"'})


class Server:
    """The server as a context: `with Server() as hub: ...`; `hub.url` is what `HF_ENDPOINT` is set to."""

    def __enter__(self) -> Hub:
        self.hub = Hub()
        handler = type("Handler", (_Handler,), {"hub": self.hub})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.hub.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.hub.storage = f"http://localhost:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self.hub

    def __exit__(self, *error) -> None:
        self._server.shutdown()
        self._server.server_close()
