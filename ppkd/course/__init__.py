"""From a folder of images to a taught student: the whole course of commands, each of them an ordinary one."""

from ppkd.course.course import Wishes, compared, prepare, run

__all__ = ["Wishes", "compared", "prepare", "run"]
