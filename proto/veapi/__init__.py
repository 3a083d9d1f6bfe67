"""What verack's programs share: the API's messages, the model, errors, channels, units."""

__version__ = "0.1.0"
