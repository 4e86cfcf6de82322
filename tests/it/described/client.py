"""Uses the client that openapi-python-client has made: subscribes, sends an event, and reads what became of it."""

import sys

from waypost_client import Client
from waypost_client.api.events import list_events, read_event, send_events
from waypost_client.api.subscriptions import create_subscription, read_subscription
from waypost_client.models import CloudEvent, NewSubscription

server, target = sys.argv[1:]
client = Client(base_url=server, raise_on_unexpected_status=True)

wanted = NewSubscription(name="by a client", jsonpath="$.data.run", target_url=target)
made = create_subscription.sync(client=client, body=wanted)
assert read_subscription.sync(made.uuid, client=client).name == "by a client"

event = CloudEvent(specversion="1.0", id="run-7", source="/microscope", type_="org.example.run.done")
event["data"] = {"run": 7}
sent = send_events.sync_detailed(client=client, body=event)
assert sent.status_code == 200, sent

page = list_events.sync(client=client, source="/microscope")
assert [row.event_id for row in page.events] == ["run-7"], page
story = read_event.sync(page.events[0].id, client=client)
assert story.deliveries[0].subscription == made.uuid, story
print(made.uuid)
