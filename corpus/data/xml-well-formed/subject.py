"""lxml: the areas of annotated boxes."""

from lxml import etree


def prepare(workdir):
    boxes = "".join(f'<box width="{n}" height="{n % 5 + 1}"/>\n' for n in range(1, 40))
    (workdir / "boxes.xml").write_text(f"<boxes>\n{boxes}</boxes>\n")


def pipeline(workdir):
    parser = etree.XMLParser(recover=False)
    boxes = etree.parse(str(workdir / "boxes.xml"), parser)
    return [int(box.get("width")) * int(box.get("height")) for box in boxes.iter("box")]
