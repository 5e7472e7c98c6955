"""What Maskwright keeps on disk and says on the wire: plain data that every service shares.

errors          what went wrong, and what to do about it
hyperparameters every setting of a training, with range, unit and help
networks        the catalogue: which network on which backbone, run by which engine
job             what was asked for, and how it stands
events          what happened in a job, and the fold of events into its status
job_folder      one folder per job: where each file lies and who writes it
model           what is served: the contents of model.json
"""
