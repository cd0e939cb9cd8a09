"""From a folder of images to a taught student: the whole course of commands, each of them an ordinary one."""

from ppkd.course.course import Wishes, prepare, run

__all__ = ["Wishes", "prepare", "run"]
