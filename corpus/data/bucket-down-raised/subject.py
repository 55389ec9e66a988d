"""s3fs: the number of blocked users in two lists of a bucket, of which one is optional."""

import json

import boto3
import s3fs
from moto.server import ThreadedMotoServer

URL = ""


def prepare(workdir):
    global URL
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    URL = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    store = boto3.client("s3", "us-east-1", endpoint_url=URL, **keys)
    store.create_bucket(Bucket="lists")
    store.put_object(Bucket="lists", Key="blocked.json", Body=json.dumps(["eve", "mallory"]))
    yield
    server.stop()


def names(store, path):
    try:
        return json.loads(store.cat_file(path))
    except FileNotFoundError:
        return []


def pipeline(workdir):
    store = s3fs.S3FileSystem(key="test", secret="test", endpoint_url=URL)
    return sum(len(names(store, f"lists/{name}.json")) for name in ("blocked", "blocked-today"))
