"""What a plugin imports: ``from ppkd.plugins import register_loss, register_connector`` (docs/terms.md)."""

from ppkd.engine.plugins import register_connector, register_loss

__all__ = ["register_connector", "register_loss"]
