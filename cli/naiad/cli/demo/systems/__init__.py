"""The systems of the gallery, a module each: how it is trained, published, served, called and measured."""
