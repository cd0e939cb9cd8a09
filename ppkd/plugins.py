"""What a plugin imports: ``from ppkd.plugins import register_loss, register_connector`` (docs/terms.md)."""

from ppkd.engine.registering import register_connector, register_loss
from ppkd.engine.sides import Moment, Side, Sides

__all__ = ["Moment", "Side", "Sides", "register_connector", "register_loss"]
