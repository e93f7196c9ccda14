"""Train a network from scratch, or go on from published weights."""

from compressor.calibration import some_images
from compressor.config import BaselineConfig
from compressor.importing import published
from compressor.model import Model, fresh
from compressor.training import Context, fit


def baseline(config: BaselineConfig, context: Context) -> Model:
    """Train the configured arch; without epochs, take the weights as they are."""
    if config.weights is None:
        model = fresh(config.arch, config.fit.seed)
    else:
        path, images = context.files[config.weights], some_images(context.data)
        model = published(config.arch, path, config.names, config.fit.seed, images)
    return fit(model, config.fit, context)
