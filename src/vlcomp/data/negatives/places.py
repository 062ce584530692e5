"""Words that tell where a thing is, and those that exclude them."""

from __future__ import annotations

# Spatial prepositions: what each may become. Order and frequency come from the corpus.
PREPOSITIONS = {
    "on": "under beside behind next_to",
    "on_top_of": "under beside behind in_front_of next_to",
    "atop": "under beside behind next_to",
    "in": "outside behind beside next_to near",
    "inside": "outside behind",
    "inside_of": "outside_of behind",
    "outside": "inside",
    "outside_of": "inside_of",
    "under": "on above beside on_top_of next_to",
    "underneath": "on above beside on_top_of next_to",
    "beneath": "on above beside on_top_of next_to",
    "below": "above over",
    "above": "below under",
    "over": "under below",
    "behind": "in_front_of on in",
    "in_front_of": "behind on in on_top_of",
    "next_to": "on in on_top_of under inside far_from",
    "beside": "on in on_top_of under inside far_from",
    "near": "on in on_top_of inside far_from",
    "close_to": "on in on_top_of inside far_from",
    "by": "in on_top_of inside",
    "alongside": "on on_top_of far_from under",
    "at": "on_top_of under above far_from",
    "up": "down",
    "down": "up",
    "into": "out_of",
    "onto": "off",
    "off": "onto",
    "out_of": "into",
    "through": "around past",
    "around": "inside on_top_of under",
    "between": "on_top_of under",
    "toward": "away_from",
    "towards": "away_from",
    "away_from": "towards",
    "to_the_left_of": "to_the_right_of",
    "to_the_right_of": "to_the_left_of",
    "left_of": "right_of",
    "right_of": "left_of",
    "on_the_side_of": "in_the_middle_of",
    "to_the_side_of": "in_the_middle_of",
    "at_the_side_of": "in_the_middle_of",
    "on_the_edge_of": "in_the_middle_of",
    "at_the_edge_of": "in_the_middle_of",
    "in_the_corner_of": "in_the_middle_of",
    "in_the_middle_of": "on_the_side_of on_the_edge_of in_the_corner_of",
    "on_the_back_of": "on_the_front_of",
    "on_the_front_of": "on_the_back_of",
    "at_the_top_of": "at_the_bottom_of",
    "at_the_bottom_of": "at_the_top_of",
}
# Words and phrases that tell where, with nothing after them.
ADVERBS = {
    "in_the_background": "in_the_foreground",
    "in_the_foreground": "in_the_background",
    "outside": "inside",
    "inside": "outside",
    "outdoors": "indoors",
    "indoors": "outdoors",
    "upstairs": "downstairs",
    "downstairs": "upstairs",
    "on_the_left": "on_the_right",
    "on_the_right": "on_the_left",
}
PREPOSITION_UNITS = (
    "next_to in_front_of on_top_of close_to inside_of outside_of out_of away_from far_from to_the_left_of "
    "to_the_right_of "
    "left_of right_of in_the_middle_of on_the_side_of at_the_top_of in_back_of instead_of along_with "
    "on_either_side_of "
    "on_each_side_of on_the_edge_of on_the_back_of in_the_back_of on_the_top_of on_the_front_of across_from "
    "because_of to_the_side_of at_the_side_of at_the_edge_of in_the_corner_of at_the_bottom_of"
).split()
