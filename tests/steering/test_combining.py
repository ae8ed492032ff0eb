from __future__ import annotations

from typing import Any

import pytest

from inference.types import CombineVectors, CompareVectors, VectorTerm
from steering.accounts.models import User
from steering.jobs.models import Job
from steering.vectors.models import Vector
from tests.fake_inference import FakeInference
from tests.guards.hostile import SCRIPTS
from tests.steering.play import keep_vector
from tests.steering.rest import Program
from tests.steering.vector_files import MODEL, make_vector, payload_of
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
COMPARE = "/vectors/compare/"


def found_for(*vectors: Vector, library: tuple[str, ...] = (), near: Any = None, text: str = " calm") -> dict[str, Any]:
    """What the model side says of vectors, in another order than they were asked for in."""
    rows = sorted(vectors, key=lambda v: v.content_id)
    n = len(rows)
    return {
        "model": MODEL,
        "revision": "fake",
        "layers": [1, 2],
        "dropped": {rows[0].content_id: [0, 3]},
        "compared": [
            {"id": v.content_id, "norms": [float(i), i + 0.5], "residual_norms": [40.0, 40.0]}
            for i, v in enumerate(rows)
        ],
        "cosines": [[[float(i == j) + i / 10 for j in range(n)] for i in range(n)]] * 2,
        "maps": [{"points": [[float(i), 0.0] for i in range(n)], "shown": 1.0}] * 2,
        "tokens": [[{"promotes": [[i, text, 1.5]], "suppresses": [[9, "<b>", -1.0]]} for i in range(n)]] * 2,
        "nearest": [near or [[] for _ in rows]] * 2,
        "library": list(library),
        "missing": 0,
    }


def ended(kind: str) -> Job:
    jobs = Job.objects.filter(kind=kind)
    until(lambda: not jobs.latest("created_at").is_active, what=f"the job {kind} ends")
    return jobs.latest("created_at")


def query(*vectors: Vector, **more: str) -> str:
    return COMPARE + "?" + "&".join([f"v={v.pk}" for v in vectors] + [f"{k}={v}" for k, v in more.items()])


def named(owner: Any, name: str, seed: int, **changes: Any) -> Vector:
    vector = keep_vector(owner, seed=seed, **changes)
    Vector.objects.filter(pk=vector.pk).update(name=name)
    vector.refresh_from_db()
    return vector


# ---- compare ----


def test_a_link_shows_the_comparison_in_its_own_order_at_its_layer(
    person: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    a, b = (named(person, name, seed) for seed, name in enumerate(("Calm", "Brief")))
    browser = browser_of(person)
    fake_inference.payload = found_for(a, b)
    assert "data-start" in browser.get(query(a, b)).content.decode()
    assert not Job.objects.exists()
    answer = browser.post(COMPARE, {"v": [a.pk, b.pk]})
    assert (answer.status_code, answer["Location"]) == (302, query(a, b))
    assert ended("compare_vectors").state == "succeeded"
    place = {v.content_id: n for n, v in enumerate(sorted((a, b), key=lambda v: v.content_id))}
    for order in ((a, b), (b, a)):
        found = browser.get(query(*order, layer="1")).context["found"]
        assert [v["name"] for v in found["vectors"]] == [v.name for v in order]
        assert [row[0] for row in found["norms"]] == [float(place[v.content_id]) for v in order]
        assert found["tokens"][0][0]["promotes"][0][0] == place[order[0].content_id]
        assert found["layer"] == 1
    asked = fake_inference.jobs[-1]
    assert isinstance(asked, CompareVectors) and asked.vector_ids == (a.content_id, b.content_id)


def test_the_library_that_is_searched_and_named_is_what_the_person_sees(
    person: User, stranger: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    a, b, mine = (named(person, name, seed) for seed, name in enumerate(("Calm", "Brief", "Mine")))
    starter, theirs = named(None, "Starter", 3), named(stranger, "Their secret", 4)
    elsewhere = named(person, "Elsewhere", 5, model="another")
    library = (mine.content_id, starter.content_id, theirs.content_id)
    near = [[[0, 0.9], [2, 0.8], [1, 0.7]], [[2, 0.5]]]  # as if a stranger's had come in
    fake_inference.payload = found_for(a, b, library=library, near=near)
    browser = browser_of(person)
    browser.post(COMPARE, {"v": [a.pk, b.pk]})
    ended("compare_vectors")
    asked = fake_inference.jobs[-1]
    assert isinstance(asked, CompareVectors)
    assert set(asked.library) == {mine.content_id, starter.content_id}
    assert elsewhere.content_id not in asked.library
    page = browser.get(query(a, b))
    names = {near["name"] for layer in page.context["found"]["nearest"] for row in layer for near in row}
    assert names == {"Mine", "Starter"} and "Their secret" not in page.content.decode()
    assert str(theirs.pk) not in page.content.decode()


def test_a_strangers_vector_and_comparison_are_as_absent_as_none(
    person: User, stranger: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    mine, theirs, other = named(person, "Mine", 0), named(stranger, "Theirs", 1), named(stranger, "Other", 2)
    browser = browser_of(person)
    assert browser.get(query(mine, theirs)).status_code == browser.get(COMPARE + "?v=x").status_code == 404
    assert browser.post(COMPARE, {"v": [mine.pk, theirs.pk]}).status_code == 404
    fake_inference.payload = found_for(theirs, other)
    browser_of(stranger).post(COMPARE, {"v": [theirs.pk, other.pk]})
    job = ended("compare_vectors")
    assert Program(person).get(f"vectors/comparisons/{job.pk}/")[0] == 404


def test_what_a_token_says_is_data_and_no_code(person: User, browser_of: Any, fake_inference: FakeInference) -> None:
    a, b = (named(person, SCRIPTS["closing"][:100] + str(seed), seed) for seed in range(2))
    fake_inference.payload = found_for(a, b, text="".join(SCRIPTS.values()))
    browser = browser_of(person)
    browser.post(COMPARE, {"v": [a.pk, b.pk]})
    ended("compare_vectors")
    assert "<script>window.owned" not in browser.get(query(a, b)).content.decode()


def test_what_cannot_be_compared_is_refused_with_a_cure(
    person: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    a, twin, other = named(person, "Calm", 0), named(person, "Twin", 0), named(person, "Far", 1, model="another")
    browser = browser_of(person)
    for vectors, said in (
        ([a], "Choose 2 to 8"),
        ([a, twin], "are the same vector"),
        ([a, other], "Directions of different models"),
    ):
        answer = browser.post(COMPARE, {"v": [v.pk for v in vectors]})
        assert answer.status_code == 400 and said in answer.content.decode()
    assert not Job.objects.exists()


def test_a_comparison_that_failed_says_why_and_can_be_asked_for_again(
    person: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    a, b = named(person, "Calm", 0), named(person, "Brief", 1)
    browser = browser_of(person)
    browser.get(COMPARE)
    fake_inference.loaded = {"fake": ""}
    browser.post(COMPARE, {"v": [a.pk, b.pk]})
    assert ended("compare_vectors").state == "failed"
    page = browser.get(query(a, b)).content.decode()
    assert "The comparison failed" in page and "data-start" not in page


# ---- combine ----


def combination(**changes: Any) -> dict[str, Any]:
    return {"name": "Calmer", "operation": "difference", "weight": ["1", "0.5", "1"], **changes}


def test_a_combination_is_a_job_whose_vector_lands_in_the_library(
    person: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    a, b = named(person, "Calm", 0), named(None, "Brief", 1)
    made = payload_of(make_vector(seed=7))
    terms = [{"vector": a.content_id, "name": "Calm", "weight": 1.0}, {"vector": "x", "name": "Brief", "weight": 0.5}]
    made["vector"] |= {"provenance": {"operation": "difference", "terms": terms}, "method": "combination"}
    fake_inference.payload = made
    browser = browser_of(person)
    answer = browser.post("/vectors/combine/", combination(v=[a.pk, b.pk, ""]))
    job = ended("combine_vectors")
    assert (answer.status_code, answer["Location"]) == (302, f"/vectors/combining/{job.pk}/")
    vector = Vector.objects.get(name="Calmer")
    assert (vector.owner, vector.method_name) == (person, "combination")
    assert vector.description == "difference of 1 × “Calm”, 0.5 × “Brief”"
    assert browser.get(answer["Location"])["Location"] == vector.get_absolute_url()
    asked = fake_inference.jobs[-1]
    assert isinstance(asked, CombineVectors) and asked.operation == "difference"
    assert asked.terms == (VectorTerm(a.content_id, 1.0, "Calm"), VectorTerm(b.content_id, 0.5, "Brief"))


def test_a_vector_without_figures_by_layer_shows_its_page_and_its_lengths(person: User, browser_of: Any) -> None:
    vector = named(person, "Mix", 0)
    vector.summary |= {"stats": [], "provenance": {"norms": {"2": 4.5}}}
    vector.save()
    assert browser_of(person).get(vector.get_absolute_url()).status_code == 200
    assert vector.facts.norms == {2: 4.5}
    vector.summary["provenance"] = {"norms": {"x": None}}
    assert Vector(summary=vector.summary).facts.norms == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": " "}, "Give the new vector a name"),
        ({"operation": "magic"}, "Choose one of"),
        ({"operation": "rescale"}, "exactly one vector"),
        ({"weight": ["1", "0", "1"]}, "not 0"),
        ({"weight": ["1", "many", "1"]}, "is not a number"),
        ({"weight": ["1", "nan", "1"]}, "up to 1000"),
        ({"weight": ["1"]}, "Each vector needs a weight"),
        ({"operation": "average", "weight": ["1", "-1", "1"]}, "above 0"),
        ({"operation": "project_out", "weight": ["1", "2", "1"]}, "has no weight"),
    ],
)
def test_a_combination_that_makes_no_sense_is_refused_with_a_cure(
    person: User, browser_of: Any, fake_inference: FakeInference, changes: dict[str, Any], said: str
) -> None:
    a, b = named(person, "Calm", 0), named(person, "Brief", 1)
    answer = browser_of(person).post("/vectors/combine/", combination(v=[a.pk, b.pk, ""]) | changes)
    assert answer.status_code == 400 and said in answer.content.decode()
    assert not Job.objects.exists()


def test_programs_combine_and_compare_too(person: User, stranger: User, fake_inference: FakeInference) -> None:
    a, b, theirs = named(person, "Calm", 0), named(person, "Brief", 1), named(stranger, "Theirs", 2)
    program = Program(person)
    terms = [{"vector": str(a.pk)}, {"vector": str(b.pk), "weight": -2}]
    fake_inference.payload = payload_of(make_vector(seed=9))
    asked = {"name": "Mix", "operation": "sum", "terms": terms}
    status, job = program.post("vectors/combine/", asked, again="k")
    assert (status, job["kind"]) == (202, "combine_vectors")
    ended("combine_vectors")
    assert program.post("vectors/combine/", asked, again="k")[1]["id"] == job["id"]
    made = program.get(f"jobs/{job['id']}/")[1]["vector"]
    assert program.get(f"vectors/{made}/")[1]["name"] == "Mix"
    fake_inference.payload = found_for(a, b)
    status, job = program.post("vectors/comparisons/", {"vectors": [str(b.pk), str(a.pk)]})
    where = program.last.headers["Location"]
    ended("compare_vectors")
    status, body = program.get(where)
    assert (status, body["state"]) == (200, "succeeded")
    assert [v["name"] for v in body["found"]["vectors"]] == ["Brief", "Calm"]
    for wrong in ({"vectors": [str(a.pk), str(theirs.pk)]}, {"vectors": [str(a.pk)]}, {"vectors": "x"}):
        assert program.post("vectors/comparisons/", wrong)[0] in (400, 404)
    Vector.objects.filter(pk=b.pk).delete()
    assert program.get(where)[1]["found"] is None
