from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from mirasol.evaluation.report.html import render


def test_a_name_without_a_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="parity"):
        render("stream.html")


def test_values_are_escaped_and_the_layout_of_the_template_is_not_drawn() -> None:
    page = render("broken.html", name="data", error='<b> & "c"')
    assert page.startswith('<section id="data"><h2>Data</h2><p class="missing">Section data: ')
    assert "&lt;b&gt; &amp; &#34;c&#34;" in page
    assert page.endswith("</code></p></section>")
