"""How models come in: from a file, from the network, from another library; each becomes a model folder, or is refused.

`importer` makes the folder. The others bring it files: `pull` those of the catalogue, `export` networks of torchvision
and timm, `adoption` what is served from the file that it came as.
"""
