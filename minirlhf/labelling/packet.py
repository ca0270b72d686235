"""The page as one HTML file to send to somebody: it works from disk, and gives back a file of votes to import.

It holds the pairs of one session, in order and with their sides; not who wrote what. Its policy allows its own script
and style, by their hashes, and nothing else.
"""

import base64
import hashlib
import json
from collections.abc import Sequence

from minirlhf.feedback.pairs import Ask
from minirlhf.feedback.votes import digest
from minirlhf.labelling.server import file
from minirlhf.labelling.session import describe


def packet(asks: Sequence[Ask]) -> str:
    """The file that asks about these pairs."""
    described = [describe(ask) for ask in asks]
    content = {"name": digest(json.dumps(described))[:8], "asks": described}
    style, script = file("page.css"), file("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    data = json.dumps(content).replace("<", "\\u003c")  # so that no text in it ends the element
    meta = '<meta charset="utf-8">'
    parts = {
        meta: f'{meta}\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<link rel="stylesheet" href="/page.css">': f"<style>{style}</style>",
        '<script src="/page.js"></script>': f'<script type="application/json" id="packet">{data}</script>\n'
        f"<script>{script}</script>",
    }
    page = file("page.html")
    for old, new in parts.items():
        if page.count(old) != 1:
            raise ValueError(f"page.html has no {old}")
        page = page.replace(old, new)
    return page


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
