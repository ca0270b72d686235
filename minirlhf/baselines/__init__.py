"""What PPO is compared with: RLOO, GRPO and DPO by TRL's trainers, on the same models, prompts and rewards."""
