"""The dashboards: one for the whole service, one each for models, the gateway and the GPUs."""
