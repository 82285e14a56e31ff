"""What users write: hardware, systems, workloads and studies, read from YAML into checked models.

:mod:`.yaml_loader` reads YAML 1.2 and remembers where everything stood, :mod:`.catalogue` finds bundled files and
resolves ``extends:``, :mod:`.overrides` applies ``--set``, :mod:`.build` checks the result against a model and says
where each number comes from. Nothing is imported here: pydantic is loaded by the commands that need it.
"""
