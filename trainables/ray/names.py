"""What the command line offers by name, in a file that costs nothing to import."""

SCENARIOS = ("class", "task", "domain")
ATTRIBUTES = ("none", "generator", "classifier", "both")  # who is told them
SAMPLERS = ("tpe", "random", "gp", "cmaes", "qmc", "nsga2")
SCHEDULERS = ("asha", "hyperband", "median", "none")
OF_GENERATORS = {"cas": "sample", "explained_variance": "reconstruct"}  # and what they ask for
# What a search may see of the stream that is reported: all of it; its first tasks, which are left
# out of the report; nothing, since another one is reported.
END_OF_STREAM, FIRST_K_TASKS, OTHER_STREAM = "end_of_stream", "first_k_tasks", "other_stream"
PROTOCOLS = (END_OF_STREAM, FIRST_K_TASKS, OTHER_STREAM)
METRICS = (
    "joint_accuracy",
    "average_accuracy",
    "average_incremental_accuracy",
    *OF_GENERATORS,
)
