"""Photos to a network's inputs: what a model expects of them, and the pixels of the crop that it sees.

`transform` says what is expected and `image_size` how large it is; `centre_crop` makes it of a decoded picture, `jpeg`
of a file. Nothing here knows models or their files.
"""
