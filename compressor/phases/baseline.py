"""Train a network from scratch, or go on from published weights."""

from compressor.config import BaselineConfig
from compressor.importing import import_weights, read_tensors
from compressor.model import Model, fresh
from compressor.training import Context, fit


def baseline(config: BaselineConfig, context: Context) -> Model:
    """Train the configured arch; without epochs, take the weights as they are."""
    if config.weights is None:
        model = fresh(config.arch, config.fit.seed)
    else:
        model = import_weights(
            config.arch, read_tensors(context.files[config.weights]), config.names, seed=config.fit.seed
        )
    return fit(model, config.fit, context)
