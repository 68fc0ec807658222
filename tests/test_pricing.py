"""Money: whole nano-dollars, unknown where unknown, and a bound that no answer passes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from batchgen.job import Price
from batchgen.pricing import NANO, Prices, dollars
from batchgen.replies import Answer, Choice, Usage
from batchgen.requests import Request

OPENAI = "https://api.openai.com/v1"
MODELS = [
    model.id
    for provider in get_snapshot().providers
    if provider.id == "openai"
    for model in provider.models
]


def request(
    model: Any,
    input_bound: int = 100,
    answer_bound: int | None = 50,
    pictures: int = 0,
    unbounded_by: str | None = None,
    **body: Any,
) -> Request:
    bounds: dict[str, Any] = {
        "input_bound": input_bound,
        "answer_bound": answer_bound,
        "pictures": pictures,
        "unbounded_by": unbounded_by,
    }
    return Request(fingerprint=b"k", endpoint="/x", body={"model": model, **body}, **bounds)


def usage(inside: int | None = 1000, outside: int | None = 100, **more: int) -> Usage:
    return Usage(input_tokens=inside, output_tokens=outside, **more)


def test_costs_are_whole_nano_dollars() -> None:
    """P25 Costs are exact whole numbers: a million small ones sum to what one large one costs."""
    prices = Prices({"m": Price(input=0.1, output=0.3, cached_input=0.01)}, OPENAI)
    assert prices.cost("m", usage(1, 1)) == 400
    assert prices.cost("m", usage(10**6, 10**6)) == 400_000_000
    assert prices.cost("m", usage(10, 0, cached_tokens=10)) == 100
    assert prices.cost("m", usage(1, 0, cached_tokens=0)) == 100
    assert dollars(400_000_000) == 0.4
    assert dollars(None) is None


def test_what_is_not_known_is_not_zero() -> None:
    """An unknown model, an unknown count or a price by the hour costs None, never 0."""
    prices = Prices(
        {"own": Price(input=1, output=2), "in": Price(input=1), "image": Price(input=1, image=0.5)},
        OPENAI,
    )
    assert prices.cost("no-such-model", usage()) is None
    assert prices.bound(request("no-such-model")) is None
    assert prices.cost("gpt-4o", Usage()) is None
    assert prices.cost("gpt-4o", usage(outside=None)) is None
    assert prices.cost("own", Usage()) is None
    assert prices.cost("own", usage(outside=None)) is None
    assert (
        prices.cost("in", usage(outside=None)) == prices.cost("in", usage(outside=0)) == 1_000_000
    )
    assert prices.cost("in", usage(outside=1)) is None
    assert prices.bound(request("in", 1000, answer_bound=0)) == 1_000_000
    assert prices.bound(request("in", 1000, answer_bound=1)) is None
    assert "pricing.in.output" in prices.missing_for_bound(request("in", 1000, answer_bound=1))
    assert prices.cost("image", usage(), pictures=3) == 3 * NANO // 2
    assert prices.cost("whisper-1", usage()) is None
    assert prices.bound(request("whisper-1")) is None
    assert prices.bound(request("gpt-4o", answer_bound=None)) is None
    assert prices.bound(request(None)) is None
    assert prices.bound(request(["gpt-4o"])) is None
    assert Prices({}, "http://127.0.0.1:1/v1").cost("llama", usage()) is None


def test_free_is_free() -> None:
    """Moderation costs nothing, also where the reply does not count tokens."""
    prices = Prices({}, OPENAI)
    assert prices.cost("omni-moderation-latest", Usage()) == 0
    assert prices.bound(request("omni-moderation-latest", answer_bound=0)) == 0


def test_embeddings_need_no_answer_tokens() -> None:
    """An embedding's reply counts its input only."""
    assert Prices({}, OPENAI).cost("text-embedding-3-small", usage(10**6, None)) == 20_000_000


def test_own_prices_come_first() -> None:
    """The job's pricing replaces what genai-prices knows; without an input price it only adds the
    picture's.
    """
    own = Prices({"gpt-4o": Price(input=1, output=2), "gpt-image-2": Price(image=0.5)}, OPENAI)
    assert own.cost("gpt-4o", usage(10**6, 10**6)) == 3 * NANO
    assert own.bound(request("gpt-4o", 10**6, 10**6)) == 3 * NANO
    assert own.cost("gpt-image-2", usage(0, 10**6), pictures=1) == 30 * NANO
    assert own.cost("gpt-image-2", Usage(), pictures=3) == 3 * NANO // 2
    assert own.bound(request("gpt-image-2", pictures=3)) == 3 * NANO // 2


def test_drawn_tokens_cost_what_pictures_cost() -> None:
    """A drawn picture's tokens have their own, higher price with some models."""
    prices = Prices({}, OPENAI)
    assert prices.cost("gpt-image-1.5", usage(0, 10**6), pictures=1) == 32 * NANO
    assert prices.cost("gpt-image-2", usage(0, 10**6), pictures=1) == 30 * NANO


def test_sound_costs_what_sound_costs() -> None:
    """P25 Audio tokens, of input and output, have their own, higher price, and the bound holds for
    them.
    """
    prices = Prices({}, OPENAI)
    audio_input = prices.cost("gpt-audio", usage(audio_tokens=1000))
    spoken = prices.cost("gpt-audio", usage(output_audio_tokens=100))
    plain, bound = prices.cost("gpt-audio", usage()), prices.bound(request("gpt-audio", 1000, 100))
    assert plain is not None
    assert audio_input is not None
    assert spoken is not None
    assert bound is not None
    assert plain < min(audio_input, spoken)
    assert (audio_input - plain, spoken - plain) == (
        1000 * (32_000 - 2_500),
        100 * (64_000 - 10_000),
    )
    assert prices.cost("gpt-audio", usage(audio_tokens=1000, output_audio_tokens=100)) == bound


def test_tiers() -> None:
    """Flex is cheaper and priority dearer than the plain price, and the bound holds for all of
    them.
    """
    prices = Prices({}, OPENAI)
    flex, plain, priority = (
        prices.cost("gpt-5", usage(), tier=tier) for tier in ("flex", None, "priority")
    )
    assert flex is not None
    assert plain is not None
    assert priority is not None
    assert flex < plain < priority
    assert prices.cost("gpt-5", usage(), tier="no such tier") == plain
    bound = prices.bound(request("gpt-5", 1000, 100))
    assert bound is not None
    assert bound >= priority


def test_every_model_at_its_corners() -> None:
    """P25 For every model: a price and a bound, or neither, and no sort of token is dearer than the
    bound has it.
    """
    prices = Prices({}, OPENAI)
    sorts: list[dict[str, int]] = [
        {},
        {"cached_tokens": 400_000},
        {"cache_write_tokens": 400_000},
        {"image_tokens": 9},
    ]
    sorts += [{"audio_tokens": 400_000}, {"output_audio_tokens": 1000}]
    for model in MODELS:
        bound = prices.bound(request(model, 400_000, 1000))
        for sort in sorts:
            for tier in (None, "flex", "priority"):
                cost = prices.cost(model, usage(400_000, 1000, **sort), tier=tier)
                assert (bound is None) == (cost is None), model
                assert cost is None or bound is None or 0 <= cost <= bound, (model, sort, tier)


@given(model=st.sampled_from(MODELS), data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_cost_passes_its_bound(model: str, data: st.DataObject) -> None:
    """P25 Whatever the usage within a request's bounds, its cost is within the bound."""
    prices = Prices({}, OPENAI)
    inside, outside = data.draw(st.integers(0, 600_000)), data.draw(st.integers(0, 200_000))
    bound = prices.bound(request(model, inside, outside))
    used = data.draw(st.integers(0, inside))
    cached = data.draw(st.none() | st.integers(0, used))
    counted = Usage(
        input_tokens=used,
        output_tokens=data.draw(st.integers(0, outside)),
        cached_tokens=cached,
        cache_write_tokens=data.draw(st.none() | st.integers(0, used - (cached or 0))),
    )
    tier = data.draw(st.sampled_from([None, "default", "flex", "priority", "fast", "scale"]))
    cost = prices.cost(model, counted, tier=tier)
    assert (bound is None) == (cost is None)
    assert cost is None or bound is None or 0 <= cost <= bound


@given(
    *(st.none() | st.integers(0, 1000) for _ in range(7)),
    st.sampled_from(
        [
            "gpt-4o",
            "gpt-audio",
            "gpt-5.6-luna",
            "gpt-image-1.5",
            "own",
            "nope",
            "text-embedding-3-small",
        ]
    ),
    st.sampled_from([None, "flex", ""]),
)
@settings(deadline=None)
def test_odd_usage_never_raises(
    inside: int | None,
    outside: int | None,
    cached: int | None,
    written: int | None,
    image: int | None,
    audio_input: int | None,
    spoken: int | None,
    model: str,
    tier: Any,
) -> None:
    """Counts that contradict each other cost something or are unknown; they are no crash and never
    negative.
    """
    counted = Usage(
        input_tokens=inside,
        output_tokens=outside,
        cached_tokens=cached,
        cache_write_tokens=written,
        image_tokens=image,
        audio_tokens=audio_input,
        output_audio_tokens=spoken,
    )
    cost = Prices({"own": Price(input=1, output=1, cached_input=0)}, OPENAI).cost(
        model, counted, pictures=1, tier=tier
    )
    assert cost is None or cost >= 0


def test_lacking_names_the_field() -> None:
    """P25 What a cap on money lacks is said with the field's name."""
    prices = Prices({}, OPENAI)
    assert prices.missing_for_bound(request(None)) == "request.model"
    assert "max_completion_tokens" in prices.missing_for_bound(request("gpt-4o", answer_bound=None))
    assert prices.bound(request("gpt-4o", unbounded_by="file_id")) is None
    assert "'file_id'" in prices.missing_for_bound(request("gpt-4o", unbounded_by="file_id"))
    assert "pricing.nope" in prices.missing_for_bound(request("nope"))
    assert OPENAI in prices.missing_for_bound(request("nope"))
    assert "pricing.gpt-image-2.image" in prices.missing_for_bound(
        request("gpt-image-2", pictures=1)
    )


PERPLEXITY = "https://api.perplexity.ai"
XAI = "https://api.x.ai/v1"
DEEPSEEK = "https://api.deepseek.com"
AZURE = "https://shop.openai.azure.com/openai/v1"
TOGETHER = "https://api.together.xyz/v1"
LOCAL = "http://127.0.0.1:8000/v1"
URLS = {
    "openai": OPENAI,
    "azure": AZURE,
    "perplexity": PERPLEXITY,
    "x-ai": XAI,
    "deepseek": DEEPSEEK,
    "together": TOGETHER,
    "groq": "https://api.groq.com/openai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai/",
}


def at(year: int, month: int, day: int, hour: int = 12) -> Any:
    return lambda: datetime(year, month, day, hour, tzinfo=UTC)


def test_a_price_per_request_is_in_the_bound() -> None:
    """P25 A model that costs something per request, besides its tokens, has a bound with it."""
    prices = Prices({}, PERPLEXITY)
    cost = prices.cost("sonar", usage(10, 5))
    assert cost == 12_000_000 + 15_000
    assert prices.bound(request("sonar", 10, 5)) == cost
    own = Prices({"sonar": Price(input=1, output=1, request=0.005)}, PERPLEXITY)
    assert own.bound(request("sonar", 10, 5)) == own.cost("sonar", usage(10, 5)) == 5_015_000


def test_a_unit_that_no_bill_counts_leaves_no_bound() -> None:
    """P25 Citations, searches that nobody counts and prices by the hour: no bound, no cost."""
    for model in ("sonar-deep-research", "perplexity/sonar", "sonar-pro-search"):
        prices = Prices({}, PERPLEXITY)
        assert prices.bound(request(model)) is None
        assert prices.cost(model, usage()) is None
        assert f"pricing.{model}" in prices.missing_for_bound(request(model))
    own = Prices({"perplexity/sonar": Price(input=1, output=1)}, "https://openrouter.ai/api/v1")
    assert own.bound(request("perplexity/sonar")) is None
    assert "request" in own.missing_for_bound(request("perplexity/sonar"))


def test_every_unit_of_every_provider_is_within_its_bound() -> None:
    """P25 For every model of every provider: tokens of every sort cost no more than the bound."""
    models = {provider.id: provider.models for provider in get_snapshot().providers}
    for name, url in URLS.items():
        prices = Prices({}, url)
        # Azure has OpenAI's models, and other prices for tiers and batches.
        for model in models[name] + (models["openai"] if name == "azure" else []):
            for batch in (False, True):
                bound = prices.bound(request(model.id, 300_000, 1000), batch=batch)
                for cached in (0, 300_000):
                    counted = usage(300_000, 1000, cached_tokens=cached)
                    cost = prices.cost(model.id, counted, batch=batch)
                    if bound is not None:
                        assert cost is not None
                        assert cost <= bound, (name, model.id, batch)


def test_prices_are_those_of_the_day() -> None:
    """A price that is over does not count, nor one that begins later; one that begins before the
    call is billed does.
    """

    def bound(now: Any) -> int | None:
        prices = Prices({}, OPENAI, now=now)
        return prices.bound(request("gpt-5.6-sol", 0, 10**6, service_tier="default"))

    early, late = bound(at(2026, 8, 1)), bound(at(2026, 9, 1))
    assert early is not None
    assert late is not None
    assert early > late
    assert bound(at(2026, 8, 20)) == early
    argon = "https://generativelanguage.googleapis.com/v1beta/openai/"
    now = Prices({}, argon, now=at(2026, 11, 20)).bound(request("gemini-4-argon", 10**6, 0))
    soon = Prices({}, argon, now=at(2026, 11, 30)).bound(request("gemini-4-argon", 10**6, 0))
    assert now is not None
    assert soon is not None
    assert soon == 2 * now


def test_prices_by_the_hour_of_the_day() -> None:
    """P25 A cheap hour may end before the call is billed, so the bound is that of the dear one."""
    for hour in range(24):
        prices = Prices({}, DEEPSEEK, now=at(2026, 11, 29, hour))
        cost = prices.cost("deepseek-v4-flash", usage(10**6, 0))
        bound = prices.bound(request("deepseek-v4-flash", 10**6, 0))
        assert (cost, bound) == (
            300_000_000 if 1 <= hour < 4 or 6 <= hour < 10 else 150_000_000,
            300_000_000,
        )


def test_the_tier_of_the_request() -> None:
    """The tier that a request names is that of its forecast and its bound, and of its bill where
    the reply names none.
    """
    prices = Prices({}, OPENAI)
    plain, flex = request("gpt-5", 1000, 100), request("gpt-5", 1000, 100, service_tier="flex")
    answer = Answer(
        choices=(Choice(text="a", finish_reason="stop"),),
        ended=True,
        finish_reason="stop",
        usage=usage(),
    )
    bill, forecast = prices.answer_cost(flex, answer), prices.forecast(flex, usage())
    assert bill == forecast == prices.cost("gpt-5", usage(), tier="flex")
    bound, open_bound = prices.bound(flex), prices.bound(plain)
    assert bound is not None
    assert open_bound is not None
    assert bound < open_bound


def test_a_batch_costs_what_the_provider_says() -> None:
    """P25 A batch has the price that genai-prices knows; else it is half at OpenAI and Azure, and
    the whole price elsewhere.
    """
    for url, model, share in (
        (OPENAI, "gpt-4o", 0.5),
        (OPENAI, "own", 0.5),
        (AZURE, "gpt-4o", 0.5),
        (AZURE, "own", 0.5),
        (XAI, "grok-4.3", 0.8),
        (XAI, "own", 1),
        (TOGETHER, "meta-llama/Llama-3.3-70B-Instruct-Turbo", 1),
        (LOCAL, "own", 1),
    ):
        prices = Prices({"own": Price(input=1, output=2, image=0.1)}, url)
        online, batch = (prices.cost(model, usage(), batch=each) for each in (False, True))
        assert online is not None
        assert batch == online * share, (url, model)
        bound = prices.bound(request(model, 1000, 100), batch=True)
        assert bound is not None
        assert bound >= batch
        assert prices.batch_shares(request(model)).cost == share
        drawn = prices.bound(request("own", pictures=2), batch=True)
        assert drawn == NANO / 5 * prices.batch_shares(request("own", pictures=2)).bound


@given(
    name=st.sampled_from(list(URLS)),
    tier=st.sampled_from([None, "flex", "priority", "fast"]),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_a_plan_in_batches_is_no_less_than_its_requests(
    name: str, tier: str | None, data: st.DataObject
) -> None:
    """P25 What a plan makes of online costs by their shares is at least what each request costs in
    a batch, for its expected cost and for its bound.
    """
    (models,) = (each.models for each in get_snapshot().providers if each.id == name)
    inside, outside = data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 10**6))
    body: dict[str, Any] = {"service_tier": tier} if tier else {}
    asked = request(data.draw(st.sampled_from(models)).id, inside, outside, **body)
    prices, used = Prices({}, URLS[name]), usage(inside, outside)
    online = prices.forecast(asked, used), prices.bound(asked)
    batch = (
        prices.cost(asked.body["model"], used, batch=True, tier=tier),
        prices.bound(asked, batch=True),
    )
    for planned, share, real in zip(online, prices.batch_shares(asked), batch, strict=True):
        if planned is not None and real is not None:
            # Prices by the length of the input are rounded up once for each of them.
            assert planned * share >= real * (1 - 1e-9) - 2, (asked, share)


def test_the_bill_of_the_server_comes_first() -> None:
    """What a server says that a call cost is what it cost, and a batch does not halve it."""
    prices = Prices({"m": Price(input=1, output=1)}, OPENAI)
    assert prices.cost("m", usage(cost=5)) == 5
    assert prices.cost("unknown", usage(None, None, cost=5), batch=True) == 5


def test_text_beside_a_drawn_picture_has_the_price_of_text() -> None:
    """What a model wrote beside a picture is not charged as if it were drawn."""
    prices = Prices({}, OPENAI)
    drawn = usage(0, 110, output_text_tokens=10, output_image_tokens=100)
    assert prices.cost("gpt-image-1.5", drawn, pictures=1) == 100 * 32_000 + 10 * 10_000
    assert (
        prices.cost("gpt-image-1.5", usage(0, 110, output_text_tokens=10), pictures=1)
        == 100 * 32_000 + 10 * 10_000
    )
