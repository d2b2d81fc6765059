"""A trained classifier that is used: asked about photos, taught more, made to forget, exported and served.

    model = Model.open("shelf.tosca")
    model.predict(features)

See folder.py for what lies where, and card.py for what a model says it is.
"""
