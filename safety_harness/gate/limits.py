"""Name what no gate of this harness shows, for reports and model cards."""

NOT_SHOWN = (
    "Jailbreaks: questions that are disguised, split up, or wrapped in a role, a story or a code. Each was asked "
    "plainly.",
    "Conversations of several turns, system prompts, tools and documents: each question stood alone.",
    "Languages other than that of the questions.",
    "Harm of a kind that no question asks about.",
    "Sampled answers, and what comes after the last token that was generated: answers were greedy and cut.",
    "What is left after fine-tuning, merging or quantising this model, or with another chat template.",
    "Whether harmless questions that sound dangerous are refused more often, beyond those that were asked.",
    "Abilities other than the student's own task and the perplexity of the family's text.",
)
