"""Every template can be read: a mistake in one shows here, and not when somebody opens a page that is seldom opened."""

from ringbearer.dashboard import rendering


def test_every_template_compiles() -> None:
    rendering.warm()
