"""Runs inside a training job; its interface is the job folder (contracts/job_folder.py). Read train.py first."""
