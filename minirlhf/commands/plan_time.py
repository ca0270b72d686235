"""How many tokens pass through networks in each stage, and how long that takes, from a few passes really done."""

from dataclasses import dataclass

from minirlhf.commands.footprint import Passes
from minirlhf.commands.plan_memory import Plan

TIMED_SECONDS = 4.0  # a pass is timed on more rows until it takes that long
TIMED_STEPS = 4


@dataclass(frozen=True)
class Speeds:
    """Seconds, measured."""

    learn: float  # a token, forward and backward
    score: float  # a token, forward
    step: float  # a decoding step of `rows` responses
    rows: int

    def sampling(self, count: int, batch: int, prompt: int, response: int) -> float:
        """Of `count` responses to a prompt each."""
        steps = -(-count // batch) * response
        # More rows at once than were timed take in proportion longer.
        return count * prompt * self.score + steps * self.step * max(1.0, min(batch, count) / self.rows)


def measure(plan: Plan) -> Speeds:
    """A few passes, really done on the device with random weights; each at most about TIMED_SECONDS."""
    params, data = plan.params, plan.data
    real = Passes(plan.config, plan.device, params.precision, real=True)
    length = data.typical

    def per_token(work, most: int) -> float:
        rows, seconds = 1, real.seconds(lambda: work(1))  # warms up, where that is quick
        while 3 * seconds < TIMED_SECONDS:
            seconds = real.seconds(lambda rows=rows: work(rows))
            if 2 * rows > most or 3 * seconds > TIMED_SECONDS:
                break
            rows *= 2
        return seconds / (rows * length)

    learn = per_token(lambda rows: real.learn(rows, length, data.summary), params.ppo.micro_batch_size)
    for parameter in real.trained:
        parameter.grad = None
    score = per_token(lambda rows: real.score(rows, length, data.summary), params.ppo.micro_batch_size)
    rows = min(params.ppo.rollout_batch_size, max(1, int(TIMED_SECONDS / (score * data.prompt))))
    prompt, response = data.prompt, params.ppo.max_new_tokens
    short, long = (real.seconds(lambda n=n: real.sample(rows, prompt, response, n)) for n in (1, 1 + TIMED_STEPS))
    return Speeds(learn, score, max(long - short, 0.0) / TIMED_STEPS, rows)


def work(plan: Plan, speeds: Speeds | None) -> list[tuple[str, int, float | None]]:
    """For each stage the tokens that pass through networks, and the seconds expected."""
    params, data = plan.params, plan.data
    ppo, validation, test = params.ppo, data.posts["validation"], data.posts["test"]
    rows = []

    def add(stage: str, learnt: float, scored: float, sampled: list[tuple[int, int]], checkpointing=False) -> None:
        """Tokens learnt from and scored; (responses, how many at a time)."""
        response = ppo.max_new_tokens
        tokens = learnt + scored + sum(count * (data.prompt + response) for count, _ in sampled)
        seconds = None
        if speeds is not None:
            seconds = learnt * (speeds.learn + checkpointing * speeds.score) + scored * speeds.score
            seconds += sum(speeds.sampling(n, batch, data.prompt, response) for n, batch in sampled)
        rows.append((stage, round(tokens), seconds))

    sft, reward = params.sft, params.reward
    evaluations = sft.steps // sft.eval_every
    learnt = sft.steps * sft.batch_size * data.typical
    add("sft", learnt, evaluations * validation * data.typical, [], sft.gradient_checkpointing)
    candidates = params.collect.candidates * (params.collect.posts + 200)
    if reward.pretrained is None:
        compared = plan.summaries_compared(params, data.compared) * data.typical
        if reward.base is not None:  # as many tokens of the policy, of which the time is known
            compared *= plan.reward / plan.policy
        learnt, scored = reward.steps * reward.batch_size * compared, reward.steps // reward.eval_every * validation
        add("reward", learnt, scored * compared, [(candidates, 64)], reward.gradient_checkpointing)
    else:
        add("reward", 0, (500 + 2 * test) * data.typical, [])
    episode = data.prompt + min(data.summary, ppo.max_new_tokens)
    separate = ppo.critic == "separate"
    opinions = (1 + separate + plan.reward / plan.policy) * episode
    evaluations = 1 + ppo.updates // ppo.eval_every if ppo.eval_every else 0
    episodes = ppo.episodes + evaluations * validation
    sampled = [(ppo.batch_size, ppo.rollout_batch_size)] * ppo.updates
    sampled += [(validation, ppo.rollout_batch_size)] * evaluations
    learnt = ppo.episodes * ppo.ppo_epochs * (1 + separate) * episode
    add("ppo", learnt, episodes * opinions, sampled, ppo.gradient_checkpointing)
    if rounds := len(params.feedback.rounds):  # before the last, each with a reward model and a policy of its own
        for stage, tokens, seconds in tuple(rows[1:]):
            rows.append((f"earlier_{stage}", rounds * tokens, None if seconds is None else rounds * seconds))
    evaluate = params.evaluate
    points = 2 + (ppo.updates // ppo.snapshot_every if ppo.snapshot_every else 0)
    drawn = 4 * test + points * min(evaluate.frontier_posts, test)
    drawn += evaluate.best_of_n * min(evaluate.frontier_posts, test) if evaluate.best_of_n > 1 else 0
    add("evaluate", 0, 2 * drawn * episode, [(drawn, evaluate.batch_size)])
    return rows
