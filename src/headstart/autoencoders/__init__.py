"""The autoencoders whose embedding layer can start the projection head (paper 3.2): networks, kinds, files.

How they are trained stands in training/autoencoder.py.
"""

from headstart.autoencoders.building import build, of_kind, register
from headstart.autoencoders.files import SOURCES, assemble, find, load, save
from headstart.autoencoders.kinds import NOISE
from headstart.autoencoders.networks import Autoencoder, EmbeddingOnly, reconstruct, rows_at_once

__all__ = [
    "NOISE",
    "SOURCES",
    "Autoencoder",
    "EmbeddingOnly",
    "assemble",
    "build",
    "find",
    "load",
    "of_kind",
    "reconstruct",
    "register",
    "rows_at_once",
    "save",
]
