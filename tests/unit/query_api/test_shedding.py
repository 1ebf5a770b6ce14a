import pytest

from query_api.shedding import InFlight, Operation, RateOptions, Rates
from schemas.errors import TooManyRequests


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


def took(rates, count, *where):
    done = 0
    for _ in range(count):
        try:
            rates.take(*where)
        except TooManyRequests:
            continue
        done += 1
    return done


def test_a_second_s_worth_may_come_at_once_and_no_more():
    """The bucket holds one second of its rate and fills at that rate."""
    clock = Clock()
    rates = Rates(RateOptions(query=10), clock)
    where = (Operation.QUERY, "movies", "a")
    assert took(rates, 30, *where) == 10
    clock.now += 0.35
    assert took(rates, 30, *where) == 3
    clock.now += 100
    assert took(rates, 30, *where) == 10


def test_over_any_stretch_the_rate_holds():
    """Whatever the spacing, no more than rate times seconds plus one bucket passes."""
    clock = Clock()
    rates = Rates(RateOptions(upsert=7), clock)
    passed = 0
    for _ in range(5_000):
        clock.now += 0.01
        passed += took(rates, 1, Operation.UPSERT, "movies", "a")
    assert 50 * 7 <= passed <= 50 * 7 + 7


def test_rate_below_one_lets_one_pass_at_a_time():
    """Half a request per second is one every two seconds."""
    clock = Clock()
    rates = Rates(RateOptions(delete=0.5), clock)
    where = (Operation.DELETE, "movies", "a")
    assert took(rates, 3, *where) == 1
    clock.now += 1.9
    assert took(rates, 3, *where) == 0
    clock.now += 0.2
    assert took(rates, 3, *where) == 1


def test_buckets_are_apart():
    """Operations, namespaces and indexes do not take each other's tokens; what has no rate has no bound."""
    rates = Rates(RateOptions(query=1, fetch=1), Clock())
    assert took(rates, 2, Operation.QUERY, "movies", "a") == 1
    assert took(rates, 2, Operation.QUERY, "movies", "b") == 1
    assert took(rates, 2, Operation.QUERY, "actors", "a") == 1
    assert took(rates, 2, Operation.FETCH, "movies", "a") == 1
    assert took(rates, 50, Operation.UPSERT, "movies", "a") == 50
    assert took(Rates(RateOptions()), 50, Operation.QUERY, "movies", "a") == 50


def test_refusal_names_operation_scope_and_rate_and_when_it_would_pass():
    """Waiting as long as it says is enough, and not much more than needed."""
    clock = Clock()
    rates = Rates(RateOptions(query=4, stats=1), clock)
    took(rates, 4, Operation.QUERY, "movies", "a")
    with pytest.raises(
        TooManyRequests, match="query requests to namespace 'a' of index 'movies': max 4 per second"
    ) as no:
        rates.take(Operation.QUERY, "movies", "a")
    assert no.value.retry_after_seconds == pytest.approx(0.25)
    clock.now += no.value.retry_after_seconds
    rates.take(Operation.QUERY, "movies", "a")
    rates.take(Operation.STATS, "movies")
    with pytest.raises(TooManyRequests, match="stats requests to index 'movies': max 1 per second"):
        rates.take(Operation.STATS, "movies")


def test_memory_is_bounded_and_the_busiest_are_remembered():
    """Of more namespaces than there may be buckets those that were asked for last keep theirs."""
    clock = Clock()
    rates = Rates(RateOptions(query=2, buckets_max=100), clock)
    for number in range(1_000):
        rates.take(Operation.QUERY, "movies", f"n{number}")
    assert len(rates._full_at) == 100
    assert took(rates, 5, Operation.QUERY, "movies", "n999") == 1
    assert took(rates, 5, Operation.QUERY, "movies", "n0") == 2


def test_requests_at_a_time_are_bounded():
    """One more than may be is refused; one that ended, also by an error, makes room."""
    bound = InFlight(2)
    with bound:
        with pytest.raises(KeyError), bound:
            raise KeyError
        with bound:
            with pytest.raises(TooManyRequests, match="max 2 at a time") as refused, bound:
                raise AssertionError
            assert refused.value.retry_after_seconds == 1
        with bound:
            pass
    unbounded = InFlight(0)
    with unbounded, unbounded, unbounded:
        pass
