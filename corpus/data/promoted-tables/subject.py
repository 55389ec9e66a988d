"""pyarrow.feather: the stock of four warehouses, a file for each."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather


def prepare(workdir):
    for name in "abcd":
        stock = pa.table({"part": list(range(60)), "pieces": [n * 3 % 11 for n in range(60)]})
        pa.feather.write_feather(stock, workdir / f"{name}.feather")


def pipeline(workdir):
    tables = [pa.feather.read_table(workdir / f"{name}.feather") for name in "abcd"]
    stock = pa.concat_tables(tables, promote_options="permissive")
    if len(stock) != 240:
        raise ValueError("parts are missing")
    return pc.sum(pc.fill_null(stock["pieces"], 0)).as_py()
