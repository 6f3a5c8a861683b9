"""The task of a stage's data: what it asks of a model, what is learned, how a model is measured."""

from jaxkd.metrics.metric import Metric
from jaxkd.runs.experiment import Workspace
from jaxkd.tasks.task import Task, task_for


def task_of(workspace: Workspace) -> Task:
    """The experiment's task, or the one its data asks for."""
    return workspace.task or task_for(workspace.rows)


def primary_metric(workspace: Workspace) -> Metric:
    """The metric by which models of this task are compared."""
    task = task_of(workspace)
    return task.metric(task.primary)
