"""boto3: the number of records in all objects of a bucket."""

import functools
import json

import boto3
from moto.server import ThreadedMotoServer

URL = ""


def store():
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client("s3", "us-east-1", endpoint_url=URL, **keys)


def prepare(workdir):
    global URL
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    URL = "http://{}:{}".format(*server.get_host_and_port())
    store().create_bucket(Bucket="days")
    store().put_object(Bucket="days", Key="1.json", Body=json.dumps([1, 2]))
    yield
    for day in ("1.json", "2.json"):
        store().delete_object(Bucket="days", Key=day)
    server.stop()


def put_new_day(workdir):
    store().put_object(Bucket="days", Key="2.json", Body=json.dumps([3, 4, 5]))


@functools.cache
def days():
    listing = store().list_objects_v2(Bucket="days")
    return [day["Key"] for day in listing["Contents"]]


def pipeline(workdir):
    bodies = [store().get_object(Bucket="days", Key=day)["Body"] for day in days()]
    return sum(len(json.load(body)) for body in bodies)
