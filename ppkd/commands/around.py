"""What needs no detector."""

from ppkd.errors import UserError


def configs(args):
    """``ppkd configs``: the configs that come with ppkd, a line each."""
    from ppkd.files.shipped import folder, listing

    if folder() is None:
        raise UserError("this ppkd was installed without its configs; install its wheel, or its repository with pip")
    found = [(heading, name, line) for heading, lines in listing() for name, line in lines if args.word in name]
    if not found:
        raise UserError(f"no config has {args.word!r} in its name")
    width, shown = max(len(name) for _, name, _ in found), None
    for heading, name, line in found:
        if heading != shown:
            print(("\n" if shown else "") + heading)
            shown = heading
        print(f"  {name:<{width}}  {line}")


def hosts(args):
    """``ppkd hosts``: Paddle, ppdet, Python and numpy as they are used here, and what was cured of them."""
    from ppkd.bridge.host import host_text
    from ppkd.bridge.workspace import import_ppdet

    import_ppdet()
    print(host_text())


def data(args):
    """``ppkd data import``: a data set of another format as one in COCO's."""
    from ppkd.importing.convert import convert

    print(convert(args.source, args.output, args.format, args.val, args.seed, args.images, args.names))


def demo(args):
    """``tools/demo.py``: the whole demo."""
    from ppkd.demo.demo import run

    run(args.teacher, args.output, args.seed, args.data)
