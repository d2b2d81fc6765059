"""Progress of an adaptation: a bar on a terminal, and a line for every epoch."""

from __future__ import annotations

from rich.progress import TimeRemainingColumn

from tosca_cache.adapt.training import Epoch
from tosca_cache.bars import LiveDisplay
from tosca_cache.terminal import make_console
from tosca_cache.text import one_line


class AdaptProgress(LiveDisplay):
    """Counts images of all epochs.

    Arguments:
        epochs, done, images: how many epochs, how many of them are done, and images in each. quiet: show nothing.
    """

    def __init__(self, name: str, epochs: int, done: int, images: int, *, quiet: bool = False) -> None:
        super().__init__(make_console(stderr=True, quiet=quiet), "images", TimeRemainingColumn())
        self.name, self.epochs = one_line(name), epochs
        self._task = self.progress.add_task(f"adapt {self.name}", total=epochs * images, completed=done * images)

    def advance(self, images: int) -> None:
        """Some more images are trained on."""
        self.progress.advance(self._task, images)

    def on_epoch(self, number: int, epoch: Epoch, *, best: bool) -> None:
        """An epoch is finished; best: it is the one to be kept so far."""
        held = ""
        if epoch.held_out_accuracy is not None:
            held = f", held out: loss {epoch.held_out_loss:.3f}, accuracy {epoch.held_out_accuracy:.1f} %"
        star = " (best so far)" if best and held else ""
        self.on_note(f"adapt {self.name}: epoch {number}/{self.epochs}, loss {epoch.loss:.3f}{held}{star}")
