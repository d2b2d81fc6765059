"""Published numbers beside ours: what was published under which protocol, and a run of it."""
