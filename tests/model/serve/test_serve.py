"""`tosca serve` over HTTP: what is answered, taught and refused, and what is left after faults."""

import io
import json
import re
import shutil
import signal
import socket
import threading
from contextlib import ExitStack, suppress
from functools import partial

import httpx2
import pytest
from campaign import times
from commands import HANGS, Command, tosca
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from model.serve.conftest import client_of, encoding, http_of, upload
from photos import photo
from PIL import Image
from steps import death, watched

from tosca_cache.model.classifier import Model
from tosca_cache.model.folder import writing
from tosca_cache.model.saved import open_model
from tosca_cache.model.session import Request, teach

TOKEN = "a-token-of-some-length"


def names(client):
    return [one["name"] for one in client.get("/classes").json()["classes"]]


def answers(client, form, **query):
    reply = client.post("/predict", files=form, params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()["answers"]


def problem(reply, status):
    assert reply.status_code == status, reply.text
    assert {"error", "where", "do"} <= set(reply.json())
    return reply.json()


def test_answers_are_those_of_predict(model, trained):
    paths = sorted((trained / "photos").rglob("*.png"))[::3]
    printed = tosca("predict", model, *paths, "--json", "--top", "2", code=0)
    expected = [json.loads(line) for line in printed.stdout.splitlines()]
    with client_of(model) as client:
        found = answers(client, [("photos", (str(path), path.read_bytes())) for path in paths], top=2)
        lower = answers(client, upload(paths[0].read_bytes()), threshold=1)
    for one, other in zip(found, expected, strict=True):
        assert [name for name, _ in one["top"]] == [name for name, _ in other["top"]]
        assert one["probability"] == pytest.approx(other["probability"], abs=0.01)
        assert (one["label"], one["path"]) == (other["label"], other["path"])
        assert one["novelty"] == pytest.approx(other["novelty"], abs=0.3)  # one held-out photo of three
    assert lower[0]["label"] == "unknown"


def test_bad_photos_and_limits_of_a_request(model):
    """A photo that cannot be read costs no other; a request that is too large is refused; all of it is counted."""
    huge = io.BytesIO()
    Image.new("1", (2000, 2000)).save(huge, "PNG")
    damaged, red, blue = photo("red", 1, "JPEG")[:500], photo("red", 1), photo("blue", 1)
    with client_of(model, pixels=1_000_000, bytes=20_000, images=6) as client:
        found = answers(client, upload(red, b"no image", b"", huge.getvalue(), damaged, blue))
        assert [one["label"] for one in found] == ["red", None, None, None, None, "blue"]
        for one, said in zip(found[1:4], ("not an image", "0 bytes", "more than 1,000,000"), strict=True):
            assert said in one["error"]
        assert "more than 6" in problem(client.post("/predict", files=upload(*[b"1"] * 7)), 413)["error"]
        large = upload(photo("red", 0, "BMP", 100))
        assert "MiB" in problem(client.post("/predict", files=large), 413)["error"]
        body = (chunk for chunk in [b"--x\r\n", *[b"a" * 1000] * 30])
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        assert problem(client.post("/predict", content=body, headers=kind), 413)["where"] == "body"
        client.get("/nothing/of/the/kind")
        text = client.get("/metrics").text
    assert 'tosca_requests_total{path="/predict",status="200"} 1.0' in text
    assert 'tosca_photos_total{outcome="unreadable"} 4.0' in text
    assert "tosca_classes 3.0" in text and "/nothing" not in text


def test_teach_answer_and_undo(model):
    def learn(name, *photos):
        return client.post("/learn", files=upload(*photos), data={"name": name})

    yellow = [photo("yellow", seed) for seed in range(4)]
    with client_of(model) as client:
        assert "1.png cannot be read" in problem(learn("yellow", yellow[0], b"no image"), 422)["error"]
        for name in ("", "  ", "..", "a/b", "a\0b", "a\nb", "x" * 201):
            problem(learn(name, yellow[0]), 422)
        problem(client.post("/learn", files=upload(yellow[0])), 422)
        problem(client.post("/learn", data={"name": "yellow"}), 422)
        assert names(client) == ["blue", "green", "red"] and not client.get("/classes").json()["can_undo"]
        reply = learn(" gelb <b>&amp; ", *yellow, yellow[0]).json()
        assert (reply["new"], reply["taught"], reply["left_out"], reply["classes"]) == (True, 4, 1, 4)
        assert answers(client, upload(photo("yellow", 9)))[0]["label"] == "gelb <b>&amp;"
        again = learn("red", yellow[1]).json()
        assert (again["taught"], again["left_out"]) == (0, 1)
        more = learn("red", photo("red", 99)).json()
        assert (more["new"], more["taught"]) == (False, 1)
        assert client.get("/classes").json()["can_undo"]
        assert client.post("/undo").json() == {"classes": 4}
        assert "nothing to undo" in problem(client.post("/undo"), 409)["error"]
    with client_of(model) as client:
        found = {one["name"]: one["images"] for one in client.get("/classes").json()["classes"]}
        assert found == {"blue": 6, "green": 6, "red": 6, "gelb <b>&amp;": 4}


def test_forget_a_class_with_any_name(model):
    """A real server: the client within a process decodes paths once more than it should."""
    with http_of(model) as client:
        for name in ("50% off", "a?b#c", "naïve ☕", "%2e%2e"):
            client.post("/learn", files=upload(photo("yellow", 1), photo("yellow", 2)), data={"name": name})
            quoted = "".join(f"%{byte:02X}" for byte in name.encode())
            assert client.delete(f"classes/{quoted}").json() == {"name": name, "exact": False, "classes": 3}
        for name in ("yellow", "..%2F..%2Fetc", "%FF", "%00", ""):
            problem(client.delete(f"classes/{name}"), 404)
        assert names(client) == ["blue", "green", "red"]


def test_a_token_is_needed_where_one_is_set_and_a_read_only_server_teaches_nothing(model):
    with client_of(model, token=TOKEN, read_only=True) as client:
        for given in (None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", "Bearer \u00fc", f"Bearer {TOKEN}x"):
            headers = {} if given is None else {"Authorization": given.encode("latin-1")}
            for method, path in (("POST", "/predict"), ("GET", "/classes"), ("GET", "/metrics"), ("GET", "/photos/x")):
                assert problem(client.request(method, path, headers=headers), 401)["do"]
        for path in ("/", "/health", "/docs", "/static/page.js"):
            reply = client.get(path)
            assert reply.status_code == 200 and "default-src 'none'" in reply.headers["Content-Security-Policy"]
        client.headers |= {"Authorization": f"Bearer {TOKEN}"}
        client.headers |= {"Host": "anywhere.example", "Origin": "https://anywhere.example"}
        assert answers(client, upload(photo("red", 1)))[0]["label"] == "red"
        problem(client.post("/learn", files=upload(photo("yellow", 1)), data={"name": "yellow"}), 403)
        problem(client.delete("/classes/red"), 403)
        problem(client.post("/undo"), 403)
        assert client.get("/classes").json()["read_only"]


def test_without_a_token_no_other_page_and_no_other_name_is_answered(model):
    with client_of(model) as client:
        for host in ("evil.example", "127.0.0.1.evil.example", "[::1", ""):
            problem(client.get("/classes", headers={"Host": host}), 403)
        evil = ("http://evil.example", "null", "http://127.0.0.1:9", "http://127.0.0.1.evil.example", "http://[")
        for origin in evil:
            problem(client.post("/undo", headers={"Origin": origin}), 403)
        for host in ("localhost:80", "[::1]:8000", "127.0.0.2"):
            assert client.get("/classes", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


def test_a_full_queue_says_when_to_try_again(model):
    go, begun = threading.Event(), threading.Event()

    def slow(photos):
        begun.set()
        assert go.wait(60)
        if b"" in photos:
            raise MemoryError

    with http_of(model, before=encoding(slow), waiting=2) as client:
        first = threading.Thread(target=answers, args=(client, upload(photo("red", 1), photo("red", 2))))
        first.start()
        assert begun.wait(60)
        busy = client.post("predict", files=upload(photo("red", 3)))
        assert "wait" in problem(busy, 503)["error"] and int(busy.headers["Retry-After"]) >= 1
        assert client.get("health").json() == {"status": "ok"}
        assert "tosca_photos_waiting 2.0" in client.get("metrics").text
        go.set()
        first.join()
        assert answers(client, upload(photo("blue", 3)))[0]["label"] == "blue"
        assert "memory" in problem(client.post("predict", files=upload(b"")), 503)["error"]


def test_nearest_training_photos_with_thumbnails_of_a_model_that_learns_views(trained, tmp_path):
    shutil.copytree(trained / "photos", tmp_path / "photos")
    model = tmp_path / "own.tosca"
    teach(Request(model, photos=tmp_path / "photos", backbone="vit_nano", root=tmp_path / "cache", views=2))
    with client_of(model) as client:
        taught = (tmp_path / "photos" / "red" / "3.png").read_bytes()
        first, *others = answers(client, upload(taught), nearest=4)[0]["nearest"]
        assert first["label"] == "red"
        assert first["similarity"] == pytest.approx(1, abs=0.01)
        assert len(others) == 3
        thumbnail = client.get(first["photo"])
        assert thumbnail.headers["Content-Type"] == "image/jpeg"
        assert Image.open(io.BytesIO(thumbnail.content)).size == (48, 48)
        yellow = upload(*(photo("yellow", n) for n in range(4)))
        assert client.post("/learn", files=yellow, data={"name": "yellow"}).json()["taught"] == 4
        learned = Model.open(model).learner.pool.classifiers
        assert learned["lda-views"].classifier.counts[-1] == 3 * learned["lda"].classifier.counts[-1]
        assert answers(client, upload(photo("yellow", 99)))[0]["label"] == "yellow"
        assert client.get(first["photo"]).status_code == 200
        (tmp_path / "photos" / "red" / "3.png").write_bytes(photo("blue", 77))  # another file in its place
        problem(client.get(first["photo"]), 404)
        (tmp_path / "photos" / "red" / "3.png").unlink()
        assert answers(client, upload(taught), nearest=1)[0]["nearest"][0]["photo"] is None
        for digest in ("0" * 32, "../../../etc/passwd", "x"):
            assert client.get(f"/photos/{digest}").status_code in (404, 422)
    shutil.rmtree(tmp_path / "cache")
    with client_of(model) as client:
        assert answers(client, upload(taught), nearest=4)[0]["nearest"] == []


def test_another_process_teaches_while_it_is_served(model):
    with client_of(model) as client:
        assert names(client) == ["blue", "green", "red"]
        other = open_model(model)
        other.forget("green")
        other.save(model)
        assert names(client) == ["blue", "red"]
        with writing(model):
            refused = client.post("/learn", files=upload(photo("yellow", 1)), data={"name": "yellow"})
            assert "is writing this model" in problem(refused, 409)["error"]
            assert answers(client, upload(photo("red", 1)))[0]["label"] == "red"


def test_what_the_command_refuses(model, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        for path, options, said in (
            (model, ("--host", "0.0.0.0"), "served with a token only"),
            (model, ("--host", "::"), "served with a token only"),
            (model, ("--token", ""), "an argument is empty"),
            (model, ("--token", "ümlaut"), "printable ASCII"),
            (model, ("--port", "70000"), "65535"),
            (model, ("--port", other.getsockname()[1]), "cannot be listened on"),
            (tmp_path / "none.tosca", ("--port", "0"), "there is no model here"),
        ):
            done = tosca("serve", path, *options)
            assert done.exit_code in (1, 2) and said in done.output


def start(model, before=None):
    """`tosca serve` in a process of its own, and its address."""
    command = Command("serve", model, "--port", "0", before=before)
    command.wait_until(lambda: "serving" in command.output)
    return command, re.search(r"http://\S+", command.output)[0]


UNTIL_ITS_END = ExitStack()


def die_before(folder, number):
    """For `before`: the server is killed before one of the steps by which it changes the model's folder."""
    UNTIL_ITS_END.enter_context(watched(folder, death(number)))


@pytest.mark.campaign
def test_killed_while_teaching_the_model_is_as_before_or_after(trained, tmp_path):
    form, seen = upload(photo("yellow", 1), photo("yellow", 2)), []
    for number in range(3, 60, times(10, 1)):
        model = shutil.copytree(trained / "colours.tosca", tmp_path / f"{number}.tosca")
        command, address = start(model, partial(die_before, model, number))
        try:
            httpx2.post(f"{address}learn", files=form, data={"name": "yellow"}, timeout=HANGS).raise_for_status()
        except httpx2.HTTPError:
            assert command.wait() == -signal.SIGKILL
        else:
            command.kill()
            break  # there are no more steps
        found = open_model(model)
        seen.append(len(found.class_names))
        assert len(found.taught) == sum(one.images for one in found.card.classes)
        found.forget("red")
        found.save(model)
        assert "red" not in open_model(model).class_names
    assert seen == sorted(seen) and set(seen) == {3, 4}


@pytest.mark.campaign
def test_fuzzed_requests_are_never_a_fault_of_the_server(model):
    """Bodies, parameters and paths that the schema allows and that it does not, by schemathesis."""
    import schemathesis

    with http_of(model, bytes=200_000) as client:
        address = str(client.base_url)

        def fuzz(strategy):
            @settings(max_examples=times(5, 200), suppress_health_check=list(HealthCheck), database=None)
            @given(case=strategy)
            def ask(case):
                reply = case.call(base_url=address)
                assert reply.status_code < 500, (case, reply.status_code, reply.text)

            ask()

        schema = schemathesis.openapi.from_url(f"{address}openapi.json")
        for result in schema.get_all_operations():
            for mode in schemathesis.GenerationMode:
                with suppress(Unsatisfiable):  # an operation without arguments cannot be asked wrongly
                    fuzz(result.ok().as_strategy(generation_mode=mode))
        assert client.get("health").status_code == 200


def test_ctrl_c_ends_it(model):
    command, address = start(model)
    assert httpx2.get(f"{address}health", timeout=HANGS).status_code == 200
    assert command.interrupt() == 0
    assert "stopped" in command.error
