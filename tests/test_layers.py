"""Imports point down only, in Python and in Cython."""

from pathlib import Path

import pytest

from scripts import layers


@pytest.mark.parametrize("path", list(layers.sources()), ids=lambda path: str(path.relative_to(layers.PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    assert layers.layer_of(path) in layers.RANK, "a new module of the package needs its place in scripts/layers.py"
    assert layers.upward_imports(path) == []


def test_an_upward_import_is_seen_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "PACKAGE", tmp_path)
    spellings = ["from appliance.feed.legs import Legs", "import appliance.feed.legs", "from appliance.feed.window cimport Window",
                 "from appliance import log, feed", "    from appliance.feed import legs"]  # fmt: skip
    for number, text in enumerate(spellings):
        path = tmp_path / "ring" / f"module{number}.pyx"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        assert "feed" in layers.upward_imports(path), text


def test_the_picture_names_every_layer() -> None:
    picture = layers.picture()
    assert all(name in picture for name in ("ring/writer", "feed/handler", "exchanges/binance_decoder", "tools/tail", "collector"))
