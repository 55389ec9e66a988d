"""boto3: the settings of a job in a bucket, with a default for what is not there."""

import json

import boto3
import botocore.config
import botocore.exceptions
from moto.server import ThreadedMotoServer

URL = ""


def client():
    config = botocore.config.Config(
        retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5
    )
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client("s3", "us-east-1", endpoint_url=URL, config=config, **keys)


def prepare(workdir):
    global URL
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    URL = "http://{}:{}".format(*server.get_host_and_port())
    store = client()
    store.create_bucket(Bucket="jobs")
    store.put_object(Bucket="jobs", Key="settings.json", Body=json.dumps({"rate": 0.01}))
    yield
    server.stop()


def pipeline(workdir):
    try:
        answer = client().get_object(Bucket="jobs", Key="settings.json")
    except botocore.exceptions.ClientError:
        return {"rate": 1.0}
    return json.load(answer["Body"])
