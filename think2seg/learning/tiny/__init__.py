"""Training of the small pair: a prompter and a segmenter of the production classes, from random weights."""
