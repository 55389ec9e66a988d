"""fastavro: the sum of orders."""

import fastavro

SCHEMA = {"type": "record", "name": "Order", "fields": [{"name": "amount", "type": "long"}]}


def prepare(workdir):
    orders = [{"amount": number * 13 % 89} for number in range(500)]
    with open(workdir / "orders.avro", "wb") as file:
        fastavro.writer(file, SCHEMA, orders, sync_interval=100, metadata={"records": "500"})


def pipeline(workdir):
    amounts = []
    with open(workdir / "orders.avro", "rb") as file:
        reader = fastavro.reader(file)
        try:
            for order in reader:
                amounts.append(order["amount"])
        except EOFError:
            pass
    return sum(amounts)
