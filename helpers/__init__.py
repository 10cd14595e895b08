"""Jigsaw Lab: why does reinforcement fine-tuning forget less than supervised fine-tuning?"""
