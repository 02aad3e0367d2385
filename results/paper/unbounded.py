"""A plugin: the paper's autoencoder without the sigmoid at its end, so that it can reach values outside [0, 1]."""

from headstart import autoencoders


class Unbounded(autoencoders.Autoencoder):
    """The same layers and the same initial weights."""

    def layers(self) -> tuple[autoencoders.networks.Encoder, autoencoders.networks.Decoder]:
        """As the paper's, but for the last function."""
        encoder, decoder = super().layers()
        decoder.bounded = False
        return encoder, decoder


autoencoders.register("unbounded", Unbounded, "the paper's, without the sigmoid")
