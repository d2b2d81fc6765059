"""A model on the network: HTTP, a page, and the photos of all requests in common batches. `app.create_app` is the door."""
