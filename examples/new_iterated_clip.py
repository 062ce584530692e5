"""Write an untrained Iterated-CLIP of the paper's size, for `vlcomp train iterated-clip --model FOLDER`.

ViT-B/32 and a causal text transformer of 12 layers, 77 tokens, 4,096 codes of size 512. Only the tokenizer and the
image processor are read from the Hub (or a folder), no weights.

    python examples/new_iterated_clip.py --output iterated-clip-start/
"""

import argparse

import torch
from transformers import AutoProcessor

from vlcomp import IteratedCLIPConfig, IteratedCLIPModel

VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}


def main(arguments: list[str] | None = None) -> IteratedCLIPModel:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where to write")
    parser.add_argument("--processor", default="openai/clip-vit-base-patch32", help="tokenizer and image processor")
    parser.add_argument("--image-size", type=int, default=224, help="pixels of a side (default: 224)")
    parser.add_argument("--patch-size", type=int, default=32, help="pixels of a patch's side (default: 32)")
    parser.add_argument("--text-length", type=int, default=77, help="tokens of the longest caption (default: 77)")
    parser.add_argument("--codes", type=int, default=4096, help="size of the codebook (default: 4096)")
    parser.add_argument("--temperature", type=float, help="of the codebook (default: 1000 per 4,096 codes)")
    parser.add_argument("--no-codebook", action="store_true", help="a plain CLIP of the same towers, the baseline")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: 0)")
    args = parser.parse_args(arguments)
    if args.patch_size < 1 or args.image_size % args.patch_size:
        parser.error(f"--image-size {args.image_size} is not a multiple of --patch-size {args.patch_size}")

    processor = AutoProcessor.from_pretrained(args.processor)
    tokenizer, images = processor.tokenizer, processor.image_processor
    square = {"height": args.image_size, "width": args.image_size}
    images.size = {"shortest_edge": args.image_size} if images.do_center_crop else square
    images.crop_size = square
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = IteratedCLIPConfig(
        text_config={**TEXT, **special, "vocab_size": len(tokenizer), "max_position_embeddings": args.text_length},
        vision_config={**VISION, "image_size": args.image_size, "patch_size": args.patch_size},
        projection_dim=512,
        use_codebook=not args.no_codebook,
        codebook_size=args.codes,
        # Sparsity depends on both: fewer codes at the temperature of many would all be active.
        temperature=1000 * args.codes / 4096 if args.temperature is None else args.temperature,
    )
    torch.manual_seed(args.seed)
    model = IteratedCLIPModel(config)
    model.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    print(f"{args.output}: {sum(value.numel() for value in model.parameters()):,} parameters, untrained")
    return model


if __name__ == "__main__":
    main()
