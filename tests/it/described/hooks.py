"""What schemathesis cannot guess: ids that are there, targets on this machine, modules."""

import os

import schemathesis

# A component without anything in it: `(component)`.
EMPTY_COMPONENT = bytes.fromhex("0061736d0d000100")


@schemathesis.serializer("application/wasm")
def wasm(_context, value):
    return {"data": value if isinstance(value, bytes) else EMPTY_COMPONENT}


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Asks about things that are there, and deletes others."""
    operation = context.operation
    if not path_parameters or operation.method.upper() == "DELETE":
        return path_parameters
    path, known = operation.path, dict(path_parameters)
    if path.startswith("/eventmatch/") and "uuid" in known:
        known["uuid"] = os.environ["TEST_SUBSCRIPTION"]
    elif path.startswith(("/events/", "/status/", "/get/")) and "id" in known:
        known["id"] = os.environ["TEST_EVENT"]
    elif path.startswith("/docs/"):
        known["page"] = "filters"
    return known


@schemathesis.hook
def map_body(context, body):
    """Makes events that are valid but for one thing, and subscriptions whose target is on this machine."""
    if isinstance(body, dict) and context.operation.path in ("/receive", "/eventmatch/{uuid}/test"):
        for name, value in (("specversion", "1.0"), ("source", "/random"), ("type", "org.example.random")):
            if isinstance(body.get(name), str):
                body[name] = value
    elif isinstance(body, dict) and context.operation.path.startswith("/eventmatch"):
        if isinstance(body.get("target_url"), str):
            body["target_url"] = "http://127.0.0.1:9/nowhere"
        if isinstance(body.get("jsonpath"), str):
            body["jsonpath"] = "$.data"
    return body
