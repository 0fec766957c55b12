"""Name what no gate of this harness shows, for reports and model cards."""

_PLAIN = (
    "Jailbreaks: questions that are disguised, split up, or wrapped in a role, a story or a code. Each was asked "
    "plainly.",
    "Conversations of several turns, system prompts, tools and documents: each question stood alone.",
)
_UNDER_ATTACK = (
    "Jailbreaks other than the attacks that were asked, and attackers who adapt to what this model answers.",
    "Conversations, system prompts, tools and documents other than those of the attacks.",
)
_GREEDY = "Sampled answers, and what comes after the last token that was generated: answers were greedy and cut."
_DRAWN = "Answers other than those that were drawn, and what comes after the last token that was generated."
_OF_QUESTIONS = ("Languages other than that of the questions.", "Harm of a kind that no question asks about.")
_UNTUNED = "What is left after fine-tuning, merging or quantising this model, or with another chat template."
_TUNED = (
    "What is left after fine-tuning on other data, by other recipes or for longer, after merging or quantising this "
    "model, or with another chat template."
)
_OF_THE_MODEL = (
    "Whether harmless questions that sound dangerous are refused more often, beyond those that were asked.",
    "Abilities other than the student's own task and the perplexity of the family's text.",
)
NOT_SHOWN = (*_PLAIN, *_OF_QUESTIONS, _GREEDY, _UNTUNED, *_OF_THE_MODEL)


def not_shown(*, under_attack: bool, tuned: bool = False) -> tuple[str, ...]:
    """Return what a gate does not show that asked plainly, or *under_attack* too, and maybe after all were *tuned*."""
    asked = (*_UNDER_ATTACK, *_OF_QUESTIONS, _DRAWN) if under_attack else (*_PLAIN, *_OF_QUESTIONS, _GREEDY)
    return (*asked, _TUNED if tuned else _UNTUNED, *_OF_THE_MODEL)
