"""What the command line offers by name, in a file that costs nothing to import."""

SCENARIOS = ("class", "task", "domain")
ATTRIBUTES = ("none", "generator", "classifier", "both")  # who is told them
SAMPLERS = ("tpe", "random", "gp", "cmaes", "qmc", "nsga2")
SCHEDULERS = ("asha", "hyperband", "median", "none")
OF_GENERATORS = {"cas": "sample", "explained_variance": "reconstruct"}  # and what they ask for
METRICS = (
    "joint_accuracy",
    "average_accuracy",
    "average_incremental_accuracy",
    *OF_GENERATORS,
)
