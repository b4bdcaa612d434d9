"""Tessera: ResNet-50 inference as a service, in a baseline and an optimised variant.

Its packages are the folders `app/`, `engine/` and `models/` of the repository. The links beside this file put them
here, for the wheel as for type checkers and editors. `tessera.engine` is the library: `from tessera import engine`.
"""
