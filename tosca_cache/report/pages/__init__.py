"""Pages: one HTML file that opens offline, made from plain values, which it holds as JSON.

    text = render([run_facts(...), ...], photos)     # facts are plain JSON values with a `kind`
    facts = extract(text)                            # gives them back

Charts are inline SVG of our own, not Vega: every `tosca train` writes a page, and Vega's scripts would add 0.9 MB to each,
take seconds to bundle, need `eval` (which the page forbids, as it forbids every address), redraw for dark mode and print,
and have neither parallel coordinates that can be brushed nor charts that can be read with the keyboard.
"""

from tosca_cache.report.pages.page import extract, render

__all__ = ["extract", "render"]
