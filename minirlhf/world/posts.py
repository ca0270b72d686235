"""Records, the Reddit-style posts around them, and the clauses in which their facts are told."""

import hashlib
import random
from collections.abc import Iterator

from minirlhf.world.grammar import EVENT_CLAUSES, FEELING_CLAUSES, FILLER_CLAUSES, SLOTS, VAGUE, VALUES, WISH_CLAUSES

Record = dict[str, str]  # slot -> value, for every slot of SLOTS

# Which share of all possible records belongs to which use, in percent. A record's share follows from its hash, so no
# two uses can ever meet the same record, whatever the seeds and however many are drawn.
SHARES = {"pretraining": 40, "train": 25, "comparisons": 20, "validation": 5, "test": 10}

SUBREDDITS = ("relationships", "advice", "legaladvice", "offmychest", "tifu", "family", "college", "jobs")

TITLES = (
    "my {relation} {verb} my {object}",
    "a problem with my {relation}",
    "what to do about my {object}",
    "feeling {feeling} because of my {relation}",
    "it happened {time} and i need help",
    "someone {verb} my {object}",
    "should i ask for {wish}",
    "i need advice about something",
)
# Each group states one slot or two; a post takes one sentence of every group, in a shuffled order.
STATEMENTS = (
    (
        "this is about my {relation}.",
        "my {relation} is the one who did it.",
        "so i have a {relation}, and things got bad.",
        "i never had trouble with my {relation} before.",
        "the person in question is my {relation}.",
        "you should know that my {relation} is involved.",
    ),
    (
        "they {verb} my {object} without asking.",
        "what they did is they {verb} my {object}.",
        "i came home and saw that they {verb} my {object}.",
        "they {verb} my {object} and never told me.",
        "i could not believe they {verb} my {object}.",
    ),
    (
        "it all happened {time}.",
        "this was {time}.",
        "{time} everything went wrong.",
        "i found out {time}.",
        "the day it happened was not long ago, {time} to be exact.",
    ),
    (
        "honestly i feel {feeling}.",
        "ever since then i am {feeling}.",
        "it made me {feeling} and i can not shake it.",
        "i keep thinking about it and i am so {feeling}.",
        "people ask how i am and the answer is {feeling}.",
    ),
    (
        "what i really want is {wish}.",
        "in the end i hope for one thing, {wish}.",
        "all i ask for is {wish}.",
        "i made up my mind that i need {wish}.",
        "i think the best thing for me would be {wish}.",
    ),
)
# Sentences that name a value which is not the record's: what a careless reader takes for the story.
DISTRACTORS = {
    "relation": (
        "my {relation} tells me to calm down.",
        "even my {relation} took my side.",
        "my {relation} was not there.",
    ),
    "verb": ("it is not as if they {verb} something of theirs.", "once they {verb} something small, i let it go."),
    "object": ("at least nobody touched my {object}.", "i was busy with my {object} at the time."),
    "time": ("things were still fine {time}.", "we had a good talk {time}, i thought."),
    "feeling": ("my friends thought i would be {feeling}.", "before that i was just {feeling}."),
    "wish": ("some say i should ask for {wish}.", "i do not care for {wish}."),
}
CHATTER = (
    "some background first.",
    "i am on my phone so forgive the format.",
    "we have known each other for years.",
    "this has been on my mind for days.",
    "i did not sleep much.",
    "nobody in the house talks about it.",
    "i tried to stay polite.",
    "maybe i am making too much of it.",
)


def share_of(record: Record) -> str:
    """The use (a key of SHARES) that a record belongs to, for ever."""
    digest = hashlib.blake2b("|".join(record[slot] for slot in SLOTS).encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") % 100
    for use, share in SHARES.items():
        place -= share
        if place < 0:
            return use
    raise AssertionError("SHARES must add up to 100")


def draw_record(rng: random.Random, use: str) -> Record:
    """A random record of the given use."""
    while True:
        record = {slot: rng.choice(VALUES[slot]) for slot in SLOTS}
        if share_of(record) == use:
            return record


def other_value(rng: random.Random, slot: str, value: str) -> str:
    """A value of the slot that is not the given one."""
    return rng.choice([v for v in VALUES[slot] if v != value])


def write_post(rng: random.Random, record: Record) -> tuple[str, str, Record]:
    """Write a post around a record.

    Returns the prompt (`SUBREDDIT: ... TITLE: ... POST: ... TL;DR:`), its subreddit, and the distracting values that
    the post names (slot -> value that is not the record's).
    """
    subreddit = rng.choice(SUBREDDITS)
    title = rng.choice(TITLES).format(**record)
    distractions = {slot: other_value(rng, slot, record[slot]) for slot in rng.sample(SLOTS, rng.randint(1, 3))}
    sentences = [rng.choice(group).format(**record) for group in STATEMENTS]
    extra = [rng.choice(DISTRACTORS[slot]).format(**{slot: value}) for slot, value in distractions.items()]
    extra += rng.sample(CHATTER, rng.randint(0, 2))
    who, *rest = sentences
    rest += extra
    rng.shuffle(rest)
    body = " ".join([who, *rest])
    return f"SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {body}\n\nTL;DR:", subreddit, distractions


def state_facts(rng: random.Random, told: Record) -> list[str]:
    """The clauses that state the given facts; what is left out becomes vague or is not said."""
    clauses = []
    if told.keys() & {"relation", "verb", "object", "time"}:
        words = {
            "who": f"my {told['relation']}" if "relation" in told else VAGUE["relation"],
            "did": told.get("verb", VAGUE["verb"]),
            "what": f"my {told['object']}" if "object" in told else VAGUE["object"],
            "time": told.get("time"),
        }
        forms = [form for form in EVENT_CLAUSES if ("{time}" in form) == ("time" in told)]
        clauses.append(rng.choice(forms).format(**words))
    if "feeling" in told:
        clauses.append(rng.choice(FEELING_CLAUSES).format(**told))
    if "wish" in told:
        clauses.append(rng.choice(WISH_CLAUSES).format(**told))
    return clauses or [rng.choice(FILLER_CLAUSES)]


def join_clauses(rng: random.Random, clauses: list[str]) -> str:
    """Clauses as sentences: most end with a full stop, some are joined with 'and'."""
    text = clauses[0]
    for clause in clauses[1:]:
        text += (" and " if rng.random() < 0.2 else ". ") + clause
    return text + "."


def stories(seed: int, use: str, count: int) -> Iterator[tuple[random.Random, Record, str, str, Record]]:
    """`count` distinct records of a use, each with its post and a random stream of its own.

    Yields (random stream, record, prompt, subreddit, distractions). The same seed and use give the same stories, and
    a larger count only adds to them.
    """
    seen = set()
    index = 0
    while len(seen) < count:
        rng = random.Random(f"{seed}/{use}/{index}")
        index += 1
        record = draw_record(rng, use)
        if (key := tuple(record.values())) in seen:
            continue
        seen.add(key)
        yield rng, record, *write_post(rng, record)
